//! `vimana hac`: write, check, translate, import and explain manifests.

mod import;

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use hac::{Diagnostics, Format, Manifest};

/// The manifest that is meant when none is named.
const DEFAULT: &str = "hac.toml";
/// The image of a first manifest.
const FIRST_IMAGE: &str = "docker.io/library/nginx:1.29";
/// A little more than `hac` reads, so that it is `hac` that refuses what is too long.
const MOST_READ: u64 = (1 << 20) + 1;
/// The exit code for a manifest that is wrong.
const INVALID: u8 = 1;

/// Write, check, translate, import and explain manifests
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented manifest to start from
    #[command(after_help = "Example:\n  vimana hac init --image docker.io/library/redis:8")]
    Init(Init),
    /// Say everything that is wrong with manifests, all at once
    ///
    /// The exit code is 0 if all are right, and 1 if one isn't.
    #[command(after_help = "Examples:\n  vimana hac check\n  vimana hac check --json deploy/*.yaml\n  \
                            cat hac.toml | vimana hac check -")]
    Check(Check),
    /// Print the JSON Schema of the manifest, for editors and validators
    #[command(after_help = "Example:\n  vimana hac schema > hac.schema.json")]
    Schema,
    /// Translate a manifest between TOML and YAML
    ///
    /// The result is in the newest version of the language, leaves out what equals its default, and has no comments.
    #[command(after_help = "Example:\n  vimana hac convert hac.toml --to yaml -o hac.yaml")]
    Convert(Convert),
    /// Make manifests of a compose file or an Akash SDL, and list what they can't say
    ///
    /// Each service becomes a folder with a hac.toml. Every key of the file is carried over, or it is listed with its
    /// place, the reason, and what to do instead. The exit code is 1 if the file can't be imported; then nothing is written.
    #[command(after_help = import::EXAMPLES)]
    Import(import::Import),
    /// Explain a key: its type, default, allowed words, what it changes
    ///
    /// Without a key it lists all of them.
    #[command(
        after_help = "Examples:\n  vimana hac explain spec.resources.memory\n  vimana hac explain iops"
    )]
    Explain(Explain),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// Where to write it, `-` for standard output [default: hac.toml, or hac.yaml with --yaml]
    path: Option<PathBuf>,
    /// The image that runs
    #[arg(long, default_value = FIRST_IMAGE)]
    image: String,
    /// The spacecore's name [default: derived from the image]
    #[arg(long)]
    name: Option<String>,
    /// Write YAML instead of TOML
    #[arg(long)]
    yaml: bool,
    /// Replace a file that is already there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// The manifests, `-` for standard input [default: hac.toml]
    files: Vec<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Convert {
    /// The manifest, `-` for standard input [default: hac.toml]
    file: Option<PathBuf>,
    /// The language to translate into
    #[arg(long)]
    to: Language,
    /// Write into this file instead of standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Replace an output file that is already there
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Explain {
    /// A path such as `spec.resources.memory`, or its end, such as `iops`
    key: Option<String>,
    /// Print the explanation as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    Toml,
    Yaml,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Init(init) => run_init(&init),
        Command::Check(check) => run_check(&check),
        Command::Schema => {
            print(&format!("{}\n", serde_json::to_string_pretty(&hac::schema())?))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Convert(convert) => run_convert(&convert),
        Command::Import(import) => import::run(&import),
        Command::Explain(explain) => run_explain(&explain),
    }
}

fn run_init(init: &Init) -> anyhow::Result<ExitCode> {
    let path =
        init.path.clone().unwrap_or_else(|| PathBuf::from(if init.yaml { "hac.yaml" } else { DEFAULT }));
    let named_yaml = Format::from_file_name(&path.to_string_lossy()) == Some(Format::Yaml);
    let format = if init.yaml || named_yaml { Format::Yaml } else { Format::Toml };
    let name = init.name.clone().unwrap_or_else(|| Manifest::from_image(&init.image).metadata.name);
    let text = match format {
        Format::Toml => hac::starter(&name, &init.image),
        Format::Yaml => hac::starter_yaml(&name, &init.image),
    };
    // What the options make of it may be wrong: a name that is no host name, an image with a blank.
    if let Err(diagnostics) = hac::parse(&text, format) {
        show(&diagnostics, &path.to_string_lossy(), &text)?;
        return Ok(ExitCode::from(INVALID));
    }
    if is_standard(&path) {
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    write_file(&path, &text, init.force)?;
    let path = path.display();
    note(&format!("wrote {path}; `vimana hac check {path}` checks it, `vimana run {path}` runs it\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn run_check(check: &Check) -> anyhow::Result<ExitCode> {
    let files = if check.files.is_empty() { vec![PathBuf::from(DEFAULT)] } else { check.files.clone() };
    let mut results = Vec::new();
    let mut errors = 0usize;
    for path in &files {
        let name = display_name(path);
        let source = read(path)?;
        let result = hac::parse(&source, Format::detect(&name, &source));
        errors += result.as_ref().err().map_or(0, |diagnostics| diagnostics.0.len());
        if check.json {
            let diagnostics =
                result.as_ref().err().map(|diagnostics| diagnostics.0.as_slice()).unwrap_or_default();
            results.push(serde_json::json!({
                "file": name,
                "valid": result.is_ok(),
                "diagnostics": diagnostics,
            }));
            continue;
        }
        match result {
            Ok(manifest) => note(&format!("{name}: {} is right\n", manifest.metadata.name))?,
            Err(diagnostics) => show(&diagnostics, &name, &source)?,
        }
    }
    if check.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&results)?))?;
    } else if errors > 0 {
        note(&format!("\n{errors} {}\n", if errors == 1 { "error" } else { "errors" }))?;
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(INVALID) })
}

fn run_convert(convert: &Convert) -> anyhow::Result<ExitCode> {
    let path = convert.file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT));
    let name = display_name(&path);
    let source = read(&path)?;
    let manifest = match hac::parse(&source, Format::detect(&name, &source)) {
        Ok(manifest) => manifest,
        Err(diagnostics) => {
            show(&diagnostics, &name, &source)?;
            return Ok(ExitCode::from(INVALID));
        }
    };
    let text = match convert.to {
        Language::Toml => hac::to_toml(&manifest),
        Language::Yaml => hac::to_yaml(&manifest),
    };
    match convert.output.as_deref().filter(|output| !is_standard(output)) {
        Some(output) => write_file(output, &text, convert.force)?,
        None => print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_explain(explain: &Explain) -> anyhow::Result<ExitCode> {
    let Some(key) = &explain.key else {
        let all = hac::reference::all();
        if explain.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
        } else {
            let width = all.iter().map(|key| key.path.len()).max().unwrap_or(0);
            let lines = all.iter().map(|key| format!("{:width$}  {}\n", key.path, key.kind));
            print(&lines.collect::<String>())?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let explanation = match hac::explain(key) {
        Ok(explanation) => explanation,
        Err(unknown) => {
            note(&format!("{unknown}\n"))?;
            return Ok(ExitCode::from(INVALID));
        }
    };
    if explain.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&explanation)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let bold = if use_color(io::stdout().is_terminal()) { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    let mut text = format!("{}{}{}\n\n{}\n\n", bold.0, explanation.path, bold.1, wrapped(explanation.effect));
    text.push_str(&format!("type:    {}\ndefault: {}\n", explanation.kind, explanation.default));
    if !explanation.values.is_empty() {
        text.push_str(&format!("values:  {}\n", explanation.values.join(", ")));
    }
    if !explanation.keys.is_empty() {
        text.push_str("keys:\n");
        for key in &explanation.keys {
            text.push_str(&format!("  {key}\n"));
        }
    }
    text.push_str(&format!("example:\n  {}\n", explanation.example.join("\n  ")));
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn display_name(path: &Path) -> String {
    if is_standard(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// Reads a manifest, or standard input for `-`.
fn read(path: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if is_standard(path) {
        io::stdin().lock().take(MOST_READ).read_to_end(&mut bytes).context("standard input can't be read")?;
    } else {
        let file = fs::File::open(path).with_context(|| {
            let hint = if path == Path::new(DEFAULT) { "; `vimana hac init` writes one" } else { "" };
            format!("{} can't be opened{hint}", path.display())
        })?;
        file.take(MOST_READ)
            .read_to_end(&mut bytes)
            .with_context(|| format!("{} can't be read", path.display()))?;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
            bail!("{}:{line}: this isn't UTF-8 text", display_name(path))
        }
    }
}

/// Writes a file; one that is there is replaced only when asked for.
fn write_file(path: &Path, text: &str, force: bool) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} is already there; --force replaces it", path.display())
        }
        Err(error) => {
            return Err(error).with_context(|| format!("{} can't be written", path.display()));
        }
    };
    file.write_all(text.as_bytes()).with_context(|| format!("{} can't be written", path.display()))
}

/// Shows what is wrong, in colour on a terminal.
fn show(diagnostics: &Diagnostics, name: &str, source: &str) -> anyhow::Result<()> {
    note(&diagnostics.render(name, source, use_color(io::stderr().is_terminal())))
}

/// Tells whether to write colours: on a terminal, unless `NO_COLOR` is set to something.
fn use_color(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Breaks a text into lines of at most 80 characters.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > 80 {
            out.push('\n');
            length = 0;
        } else if length > 0 {
            out.push(' ');
            length += 1;
        }
        out.push_str(word);
        length += word_length;
    }
    out
}

/// Writes to standard output; a reader that has gone (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    written(io::stdout().lock().write_all(text.as_bytes()), "standard output")
}

/// Writes to standard error.
fn note(text: &str) -> anyhow::Result<()> {
    written(io::stderr().lock().write_all(text.as_bytes()), "standard error")
}

fn written(result: io::Result<()>, place: &str) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).with_context(|| format!("{place} can't be written"))
        }
        _ => Ok(()),
    }
}
