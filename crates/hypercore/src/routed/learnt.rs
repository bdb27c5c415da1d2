//! What a gateway has learnt of names: which addresses are in its rules' sets, and until when. Decides what is to be told to the
//! kernel; a guest that asks the same again and again causes nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// The most addresses that are remembered of one rule's names, of each family; for a new one the one that ends first is forgotten.
pub(super) const MOST: usize = 2048;
/// The most addresses of one answer that are learnt.
const OF_ONE_ANSWER: usize = 64;

/// Which addresses are known, by their rule's place.
#[derive(Debug, Default)]
pub(super) struct Learnt(HashMap<(usize, IpAddr), Instant>);

/// What the kernel is to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// New, or to stay for longer.
    pub(super) known: Vec<(usize, IpAddr, Duration)>,
    /// To be forgotten, to make room.
    pub(super) forgotten: Vec<(usize, IpAddr)>,
}

impl Learnt {
    /// Takes the addresses of an answer. What is known for longer than half of that time isn't news.
    pub(super) fn take(&mut self, answer: &[(usize, IpAddr, Duration)], now: Instant) -> News {
        let mut news = News::default();
        for (rule, address, holds) in answer.iter().take(OF_ONE_ANSWER).copied() {
            let key = (rule, address);
            let half = now.checked_add(holds / 2).unwrap_or(now);
            let known = self.0.get(&key).copied();
            if known.is_some_and(|until| until > half) {
                continue;
            }
            if known.is_none() {
                news.forgotten.extend(self.make_room(rule, address, now));
            }
            self.0.insert(key, now.checked_add(holds).unwrap_or(now));
            news.known.push((rule, address, holds));
        }
        // What was new and had to go again in one answer.
        news.known.retain(|(rule, address, _)| !news.forgotten.contains(&(*rule, *address)));
        news.forgotten.retain(|key| !self.0.contains_key(key));
        news
    }

    /// Forgets what has ended, and what ends first if that isn't enough.
    fn make_room(&mut self, rule: usize, address: IpAddr, now: Instant) -> Option<(usize, IpAddr)> {
        let is_same = |key: &(usize, IpAddr)| key.0 == rule && key.1.is_ipv4() == address.is_ipv4();
        if self.0.keys().filter(|key| is_same(key)).count() < MOST {
            return None;
        }
        // The kernel forgets those by itself.
        self.0.retain(|_, until| *until > now);
        let mut same = self.0.iter().filter(|(key, _)| is_same(key));
        let first = same.by_ref().map(|(key, until)| (*until, *key)).min()?;
        if self.0.keys().filter(|key| is_same(key)).count() < MOST {
            return None;
        }
        self.0.remove(&first.1);
        Some(first.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HOUR: Duration = Duration::from_secs(3600);

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0800_0000 + number).into()
    }

    #[test]
    fn what_is_known_is_no_news_before_half_its_time() {
        let (mut learnt, now) = (Learnt::default(), Instant::now());
        let answer = [(0, address(1), HOUR), (3, address(1), HOUR)];
        assert_eq!(learnt.take(&answer, now).known, answer);
        assert_eq!(learnt.take(&answer, now + HOUR / 3), News::default());
        assert_eq!(learnt.take(&answer, now + HOUR / 3 * 2).known, answer);
    }

    #[test]
    fn however_many_are_named_there_is_room_for_one_more() {
        let (mut learnt, now) = (Learnt::default(), Instant::now());
        let (mut known, mut second) = (std::collections::HashSet::new(), Duration::from_secs(60));
        for number in 0..5000 {
            second += Duration::from_millis(1);
            let news = learnt.take(&[(0, address(number), second)], now);
            assert_eq!(news.known.len(), 1);
            news.forgotten.iter().for_each(|gone| assert!(known.remove(gone), "{gone:?}"));
            known.insert((0, address(number)));
            assert!(known.len() <= MOST);
        }
        assert!(known.contains(&(0, address(4999))) && !known.contains(&(0, address(0))));
        assert_eq!(
            learnt.take(&[(1, address(0), HOUR)], now).forgotten,
            [],
            "another rule has room of its own"
        );
    }
}
