//! The bare mechanism: a WASI preview 1 program run by the crate wasmtime alone, from compiled code on disk, for comparison.
//!
//! ```text
//! bare_wasmtime compile PROGRAM.wasm PROGRAM.cwasm
//! bare_wasmtime run PROGRAM.cwasm [ARGUMENT...]
//! ```

use std::error::Error;
use std::path::Path;

use wasmtime::{Engine, Linker, Module, Store};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["compile", from, to] => {
            let code = Engine::default().precompile_module(&std::fs::read(from)?)?;
            std::fs::write(to, code)?;
            Ok(())
        }
        ["run", compiled, arguments @ ..] => run(Path::new(compiled), arguments),
        _ => {
            Err("bare_wasmtime compile PROGRAM.wasm PROGRAM.cwasm, or bare_wasmtime run PROGRAM.cwasm".into())
        }
    }
}

#[allow(unsafe_code)]
fn run(compiled: &Path, arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let engine = Engine::default();
    // SAFETY: whoever runs this names a file that this program has written.
    let module = unsafe { Module::deserialize_file(&engine, compiled) }?;
    let mut linker: Linker<WasiP1Ctx> = Linker::new(&engine);
    p1::add_to_linker_sync(&mut linker, |wasi| wasi)?;
    let wasi = WasiCtxBuilder::new().inherit_stdio().arg("program").args(arguments).build_p1();
    let mut store = Store::new(&engine, wasi);
    let instance = linker.instantiate(&mut store, &module)?;
    match instance.get_typed_func::<(), ()>(&mut store, "_start")?.call(&mut store, ()) {
        Ok(()) => Ok(()),
        Err(error) => match error.downcast_ref::<I32Exit>() {
            Some(exit) => std::process::exit(exit.0),
            None => Err(error.into()),
        },
    }
}
