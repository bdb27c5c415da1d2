//! What waits to be sent: bounded, in order; where there is no room the oldest goes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// The most batches.
const BATCHES: usize = 16;
/// The most bytes of all together.
const BYTES: usize = 32 * 1024 * 1024;

/// One batch.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) body: Vec<u8>,
    /// How many numbers or lines it has.
    pub(super) count: u64,
    /// For how long it is tried; without end where nothing is said.
    pub(super) patience: Option<Duration>,
    /// Told, or dropped, when it is over.
    pub(super) done: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    more: Condvar,
}

impl Queue {
    /// Adds one; says how many numbers or lines had to go for it.
    pub(super) fn push(&self, job: Job) -> u64 {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.push_back(job);
        let mut dropped = 0u64;
        // The newest stays, however large it is.
        while jobs.len() > 1
            && (jobs.len() > BATCHES || jobs.iter().map(|job| job.body.len()).sum::<usize>() > BYTES)
        {
            dropped = dropped.saturating_add(jobs.pop_front().map_or(0, |job| job.count));
        }
        self.more.notify_one();
        dropped
    }

    /// Takes the oldest; waits for one.
    pub(super) fn pop(&self) -> Job {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match jobs.pop_front() {
                Some(job) => return job,
                None => jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_the_oldest_goes_where_there_is_no_room() {
        let queue = Queue::default();
        let job = |count: u64, size| Job { body: vec![0; size], count, patience: None, done: None };
        let dropped: u64 = (0..20).map(|count| queue.push(job(count, 1))).sum();
        assert_eq!(dropped, 1 + 2 + 3);
        assert_eq!((0..16).map(|_| queue.pop().count).collect::<Vec<_>>(), (4..20).collect::<Vec<_>>());
        assert_eq!(queue.push(job(1, BYTES)) + queue.push(job(2, BYTES)), 1);
        assert_eq!(queue.pop().count, 2);
    }
}
