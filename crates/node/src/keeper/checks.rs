//! Checks that clients ask for, on their way to the guest and back. Each is answered once: by the guest, or, where that says
//! nothing in time, by the keeper.

use std::collections::BTreeMap;

/// How long the guest may take beyond the time that a check has, in milliseconds.
const BEYOND_MS: u64 = 1000;

/// Whoever waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The client.
    pub client: u32,
    /// The number that the client gave its question.
    pub request: u32,
    /// Whether it asked for a page.
    pub page: bool,
}

/// All checks that aren't answered yet.
#[derive(Debug, Default)]
pub struct Checks {
    waiting: BTreeMap<u32, (Asker, u64)>,
    next: u32,
}

impl Checks {
    /// Notes a question at the time `now_ns`; returns the number to ask the guest by.
    pub fn ask(&mut self, asker: Asker, timeout_ms: u64, now_ns: u64) -> u32 {
        self.next = self.next.wrapping_add(1);
        let patience = timeout_ms.saturating_add(BEYOND_MS).saturating_mul(1_000_000);
        self.waiting.insert(self.next, (asker, now_ns.saturating_add(patience)));
        self.next
    }

    /// Whom the guest's answer of this number is for; nobody, where it comes too late or was never asked for.
    pub fn answered(&mut self, number: u32) -> Option<Asker> {
        self.waiting.remove(&number).map(|(asker, _)| asker)
    }

    /// When the first of them is answered by the keeper.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.waiting.values().map(|(_, deadline)| *deadline).min()
    }

    /// Takes those to which the guest had to answer before `now_ns`.
    pub fn overdue(&mut self, now_ns: u64) -> Vec<Asker> {
        let mut overdue = Vec::new();
        self.waiting.retain(|_, (asker, deadline)| {
            let is_overdue = *deadline <= now_ns;
            overdue.extend(is_overdue.then_some(*asker));
            !is_overdue
        });
        overdue
    }

    /// Takes all, as when the guest is gone.
    pub fn take_all(&mut self) -> Vec<Asker> {
        std::mem::take(&mut self.waiting).into_values().map(|(asker, _)| asker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_is_answered_once() {
        let mut checks = Checks::default();
        let asker = |request| Asker { client: 4, request, page: false };
        assert_eq!(checks.deadline_ns(), None);
        let first = checks.ask(asker(70), 500, 0);
        let second = checks.ask(asker(70), 200, 0);
        assert_ne!(first, second);
        assert_eq!(checks.deadline_ns(), Some(1_200_000_000));
        assert_eq!(checks.answered(first), Some(asker(70)));
        assert_eq!(checks.answered(first), None, "a guest that answers twice");
        assert!(checks.overdue(1_199_999_999).is_empty());
        assert_eq!(checks.overdue(1_200_000_000), [asker(70)]);
        assert_eq!(checks.answered(second), None, "a guest that answers too late");
        checks.ask(asker(71), u64::MAX, 5);
        assert_eq!(checks.take_all(), [asker(71)]);
        assert_eq!(checks.deadline_ns(), None);
    }
}
