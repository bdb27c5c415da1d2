//! What the host keeps for one program: its view of WASI, and its limits.

use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::limits::Limits;

/// The host's side of one program.
pub(super) struct State {
    /// Files, clocks, streams: all that it was granted. Components use the same through its view.
    pub(super) wasi: WasiP1Ctx,
    pub(super) limits: Limits,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}
