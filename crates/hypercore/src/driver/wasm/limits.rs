//! What a program may hold: memory over all of its memories together, elements over all of its tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::ResourceLimiter;

use super::control::Control;

/// Core instances and tables, and memories, that a program may have. A component links a handful of each.
const INSTANCES_MAX: usize = 1000;
const MEMORIES_MAX: usize = 100;

/// The limits of one program, and how much of them is used.
#[derive(Debug)]
pub(super) struct Limits {
    memory_max: u64,
    memory: u64,
    elements_max: u64,
    elements: u64,
    /// Whether the last growth of a memory was refused.
    was_refused: bool,
    control: Arc<Control>,
}

impl Limits {
    pub(super) fn new(memory_max: u64, elements_max: u64, control: Arc<Control>) -> Self {
        Self { memory_max, memory: 0, elements_max, elements: 0, was_refused: false, control }
    }

    /// Whether the program was refused memory the last time that it asked for some.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.was_refused
    }

    /// The most bytes that its memories may have.
    pub(super) fn memory_max(&self) -> u64 {
        self.memory_max
    }
}

/// The new sum where one of its parts grows, unless it would be over the limit.
fn grown(sum: u64, current: usize, desired: usize, max: u64) -> Option<u64> {
    let more = u64::try_from(desired.checked_sub(current)?).ok()?;
    sum.checked_add(more).filter(|sum| *sum <= max)
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // What the program's own declaration forbids is no want of the machine's memory.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let sum = grown(self.memory, current, desired, self.memory_max);
        self.was_refused = sum.is_none();
        if let Some(sum) = sum {
            self.memory = sum;
            self.control.memory.store(sum, Ordering::Relaxed);
        }
        Ok(sum.is_some())
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.was_refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let sum = grown(self.elements, current, desired, self.elements_max);
        self.elements = sum.unwrap_or(self.elements);
        Ok(sum.is_some())
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_together_are_held_to_the_limit() {
        let control = Arc::new(Control::default());
        let mut limits = Limits::new(10, 10, Arc::clone(&control));
        assert!(limits.memory_growing(0, 6, None).unwrap());
        assert!(!limits.memory_growing(0, 5, None).unwrap());
        assert!(limits.ran_out_of_memory());
        assert!(limits.memory_growing(0, 4, None).unwrap());
        assert!(!limits.ran_out_of_memory());
        assert!(!limits.memory_growing(4, usize::MAX, Some(5)).unwrap());
        assert!(!limits.ran_out_of_memory(), "its own maximum is no want of memory");
        assert_eq!(control.memory.load(Ordering::Relaxed), 10);
        assert!(limits.table_growing(0, 10, None).unwrap());
        assert!(!limits.table_growing(0, 1, None).unwrap());
    }
}
