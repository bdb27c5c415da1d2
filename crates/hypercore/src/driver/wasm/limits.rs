//! What a program may hold: memory over all of its memories together, elements over all of its tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::ResourceLimiter;

use super::control::Control;

/// Core instances and tables, and memories, that a program may have. A component links a handful of each.
const INSTANCES_MAX: usize = 1000;
const MEMORIES_MAX: usize = 100;

/// A sum that is held to a limit.
#[derive(Debug)]
struct Sum {
    used: u64,
    max: u64,
}

/// What becomes of a wish to grow.
#[derive(Debug, PartialEq, Eq)]
enum Growth {
    Granted,
    /// It would be over the limit.
    Refused,
    /// The program's own declaration forbids it, which is no want of the machine's.
    Undeclared,
}

impl Sum {
    /// Counts what one of its parts grows by, if there is room for it.
    fn grow(&mut self, current: usize, desired: usize, declared: Option<usize>) -> Growth {
        if declared.is_some_and(|declared| desired > declared) {
            return Growth::Undeclared;
        }
        let more = desired.checked_sub(current).and_then(|more| u64::try_from(more).ok());
        let used = more.and_then(|more| self.used.checked_add(more)).filter(|used| *used <= self.max);
        match used {
            Some(used) => {
                self.used = used;
                Growth::Granted
            }
            None => Growth::Refused,
        }
    }
}

/// The limits of one program, and how much of them is used.
#[derive(Debug)]
pub(super) struct Limits {
    memory: Sum,
    elements: Sum,
    /// Whether the last growth of a memory was refused.
    was_refused: bool,
    control: Arc<Control>,
}

impl Limits {
    pub(super) fn new(memory_max: u64, elements_max: u64, control: Arc<Control>) -> Self {
        let limit = |max| Sum { used: 0, max };
        Self { memory: limit(memory_max), elements: limit(elements_max), was_refused: false, control }
    }

    /// Whether the program was refused memory the last time that it asked for some.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.was_refused
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let growth = self.memory.grow(current, desired, maximum);
        if growth != Growth::Undeclared {
            self.was_refused = growth == Growth::Refused;
        }
        self.control.memory.store(self.memory.used, Ordering::Relaxed);
        Ok(growth == Growth::Granted)
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
        Ok(self.elements.grow(current, desired, maximum) == Growth::Granted)
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
