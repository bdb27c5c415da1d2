//! What the host keeps for one program: its view of WASI, and its limits.

use std::sync::Arc;

use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::limits::Limits;
use super::names::Resolver;

/// The host's side of one program.
pub(super) struct State {
    /// Files, clocks, streams: all that it was granted. Components use the same through its view.
    pub(super) wasi: WasiP1Ctx,
    pub(super) limits: Limits,
    /// Who is asked for addresses; nobody without a network.
    pub(super) resolver: Arc<Resolver>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}
