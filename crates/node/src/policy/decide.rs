//! The policy's decision, and nothing else: what is known goes in, a yes or a no with its reason comes out.

use std::fmt::Write as _;

use evidence::advisory::{Finding, Level};
use hac::Policy;
use hac::policy::{Date, Ignored, Severity};
use image::advisories::Scan;

/// The most findings that a refusal shows.
const MOST_SHOWN: usize = 8;

/// What is known of an image.
#[derive(Debug)]
pub struct Facts<'f> {
    /// The policy's file, which a refusal names.
    pub policy: &'f str,
    /// The image's full name.
    pub image: &'f str,
    /// Whether its name has its digest.
    pub by_digest: bool,
    /// If its signature was asked for: the key or identity that it is of, or why there is none.
    pub signature: Option<Result<String, String>>,
    /// If it was scanned: what was found.
    pub scan: Option<Scan>,
    /// The day.
    pub today: Date,
}

/// Why an image may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It comes from elsewhere.
    #[error(
        "{image} may not run here: registries.allowed has {}",
        if allowed.is_empty() { "nothing in it".to_owned() } else { format!("only {}", allowed.join(", ")) }
    )]
    Registry {
        /// The image.
        image: String,
        /// Where it may come from.
        allowed: Vec<String>,
    },
    /// It isn't named by its digest.
    #[error(
        "{image} may not run here: registries.require_digest wants its name to end in its digest, @sha256:..."
    )]
    Digest {
        /// The image.
        image: String,
    },
    /// Nobody who is trusted vouches for it.
    #[error(
        "{image} may not run here: it must be signed by one of the keys or identities of [signatures], but {reason}"
    )]
    Unsigned {
        /// The image.
        image: String,
        /// What was found instead.
        reason: String,
    },
    /// It wasn't looked at.
    #[error("{image} may not run here: it must be scanned, and wasn't")]
    Unscanned {
        /// The image.
        image: String,
    },
    /// Too much is known against it.
    #[error("{image} may not run here: {}", findings_text(*.count, *.threshold, findings, advice))]
    Vulnerable {
        /// The image.
        image: String,
        /// From which level on.
        threshold: Level,
        /// How many findings there are.
        count: usize,
        /// The first of them, in a person's words.
        findings: Vec<String>,
        /// How to allow it.
        advice: String,
    },
}

fn findings_text(count: usize, threshold: Level, findings: &[String], advice: &str) -> String {
    let (what, are) = if count == 1 { ("finding", "is") } else { ("findings", "are") };
    let mut text = format!("{count} {what} {are} {threshold} or worse");
    for finding in findings {
        // Writing to a string can't fail.
        let _ = write!(text, "\n{finding}");
    }
    if count > findings.len() {
        let _ = write!(text, "\nand {} more", count - findings.len());
    }
    let _ = write!(text, "\n{advice}");
    text
}

/// Judges an image by its name.
///
/// # Errors
/// [`Refusal`].
pub fn name(policy: &Policy, image: &str, by_digest: bool) -> Result<(), Refusal> {
    if !policy.registries.allows(image) {
        let allowed = policy.registries.allowed.iter().flatten().map(ToString::to_string).collect();
        return Err(Refusal::Registry { image: image.to_owned(), allowed });
    }
    if policy.registries.require_digest && !by_digest {
        return Err(Refusal::Digest { image: image.to_owned() });
    }
    Ok(())
}

/// Judges an image, and says what a person should know if it may run.
///
/// # Errors
/// [`Refusal`]. What the policy demands and wasn't found out counts as a no.
pub fn image(policy: &Policy, facts: &Facts<'_>) -> Result<Vec<String>, Refusal> {
    name(policy, facts.image, facts.by_digest)?;
    let image = || facts.image.to_owned();
    let mut notices = Vec::new();
    if policy.signatures.requires(facts.image) {
        match &facts.signature {
            Some(Ok(by)) => notices.push(format!("the image is signed: {by}")),
            Some(Err(reason)) => return Err(Refusal::Unsigned { image: image(), reason: reason.clone() }),
            None => {
                let reason = "its signatures weren't looked for".to_owned();
                return Err(Refusal::Unsigned { image: image(), reason });
            }
        }
    }
    if policy.scan.advisories.is_none() {
        return Ok(notices);
    }
    let Some(scan) = &facts.scan else { return Err(Refusal::Unscanned { image: image() }) };
    let threshold = level(policy.scan.threshold);
    let failing: Vec<&Finding> =
        scan.findings.iter().filter(|finding| fails(&policy.scan, finding, facts.today)).collect();
    if let Some(worst) = failing.first() {
        return Err(Refusal::Vulnerable {
            threshold,
            count: failing.len(),
            findings: failing
                .iter()
                .take(MOST_SHOWN)
                .map(|finding| shown(policy, finding, facts.today))
                .collect(),
            advice: format!(
                "use an image with the fixed versions; or, to allow one of them, put \"{} REASON until YYYY-MM-DD\" into \
                 scan.ignore of {} (vimana image scan {} shows all)",
                worst.advisory, facts.policy, facts.image
            ),
            image: image(),
        });
    }
    let ignored = scan.findings.iter().filter_map(|finding| ignored(&policy.scan, finding, facts.today));
    let mut names: Vec<&str> = ignored.map(|ignored| ignored.advisory.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if !names.is_empty() {
        notices.push(format!("the policy ignores {}", names.join(", ")));
    }
    notices.extend(scan.unread.iter().map(|unread| format!("the scan is not whole: {unread}")));
    Ok(notices)
}

/// Tells whether a finding keeps an image from running.
#[must_use]
pub fn fails(scan: &hac::policy::Scan, finding: &Finding, today: Date) -> bool {
    let found = finding.rating.as_ref().map_or(level(scan.unrated), |rating| rating.level);
    found >= level(scan.threshold) && ignored(scan, finding, today).is_none()
}

/// The line of the policy by which a finding is ignored. One that is about several CVEs is ignored if each of them is.
fn ignored<'p>(scan: &'p hac::policy::Scan, finding: &Finding, today: Date) -> Option<&'p Ignored> {
    let line =
        |name: &str| scan.ignore.iter().find(|ignored| ignored.holds(today) && ignored.advisory == name);
    let cves: Vec<&str> = finding.names().filter(|name| name.starts_with("CVE-")).collect();
    match cves.as_slice() {
        [] | [_] => finding.names().find_map(line),
        [first, rest @ ..] => rest.iter().all(|name| line(name).is_some()).then(|| line(first)).flatten(),
    }
}

fn shown(policy: &Policy, finding: &Finding, today: Date) -> String {
    let mut text = format!("{} {}", finding.package, finding.version);
    let others: Vec<&str> = finding
        .installed
        .iter()
        .map(String::as_str)
        .filter(|name| *name != finding.package)
        .take(4)
        .collect();
    if !others.is_empty() {
        let _ = write!(text, " ({})", others.join(", "));
    }
    let _ = write!(text, ": {}", finding.advisory);
    match &finding.rating {
        Some(rating) => {
            let _ = write!(text, ", {}", rating.level);
            if let Some(score) = &rating.score {
                let _ = write!(text, " ({score})");
            }
        }
        None => {
            let _ = write!(text, ", not rated, which counts as {}", policy.scan.unrated);
        }
    }
    match &finding.fixed {
        Some(fixed) => {
            let _ = write!(text, ", fixed in {fixed}");
        }
        None => text.push_str(", not fixed yet"),
    }
    let names = |ignored: &&Ignored| finding.names().any(|name| name == ignored.advisory);
    let over = policy.scan.ignore.iter().filter(|ignored| !ignored.holds(today)).find(names);
    if let Some(until) = over.and_then(|ignored| ignored.until) {
        let _ = write!(text, "; it was ignored until {until}");
    }
    text
}

/// The level that the policy's word means.
#[must_use]
pub fn level(severity: Severity) -> Level {
    match severity {
        Severity::Low => Level::Low,
        Severity::Medium => Level::Medium,
        Severity::High => Level::High,
        Severity::Critical => Level::Critical,
    }
}
