//! What a guest may ask a name server, and what is learnt from the answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use simple_dns::rdata::RData;

use super::{Policy, Rule, Who, is_public, names};

/// A name server's code for what its policy forbids.
pub(crate) const REFUSED: u8 = 5;
/// How long a name's address holds, whatever its answer says: programs keep addresses a little longer than they should.
const NAME: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

impl Policy {
    /// Whether a question may be put to a name server: any, or one for a name of a rule and nothing else.
    pub(crate) fn may_ask(&self, question: &[u8]) -> bool {
        if self.is_open() {
            return true;
        }
        let Ok(question) = simple_dns::Packet::parse(question) else { return false };
        let plain = question.answers.is_empty() && question.name_servers.is_empty();
        plain
            && question.questions.len() == 1
            && question.questions.iter().all(|question| self.about(&lower(&question.qname)).next().is_some())
    }

    /// The rules, by their places, that a name is meant by.
    fn about<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        let is_meant = move |rule: &Rule| matches!(&rule.who, Who::Name(wanted) if names(wanted, name));
        (0..).zip(&self.to).filter(move |(_, rule)| is_meant(rule)).map(|(place, _)| place)
    }

    /// The public addresses of names of rules that a name server's answer tells: the rule's place, and how long each holds.
    pub(crate) fn learned(&self, answer: &[u8]) -> Vec<(usize, IpAddr, Duration)> {
        let Ok(answer) = simple_dns::Packet::parse(answer) else { return Vec::new() };
        let Some(asked) = answer.questions.first().map(|question| lower(&question.qname)) else {
            return Vec::new();
        };
        let rules: Vec<usize> = self.about(&asked).collect();
        let mut learned = Vec::new();
        // The name, and what it is another name of.
        let mut same = vec![asked];
        for record in &answer.answers {
            if !same.contains(&lower(&record.name)) {
                continue;
            }
            let address: IpAddr = match &record.rdata {
                RData::A(a) => Ipv4Addr::from(a.address).into(),
                RData::AAAA(a) => Ipv6Addr::from(a.address).into(),
                RData::CNAME(other) => {
                    same.push(lower(&other.0));
                    continue;
                }
                _ => continue,
            };
            if is_public(address) {
                let holds = Duration::from_secs(record.ttl.into()).clamp(NAME.0, NAME.1);
                learned.extend(rules.iter().map(|rule| (*rule, address, holds)));
            }
        }
        learned
    }
}

/// A name as it is compared.
pub(crate) fn lower(name: &simple_dns::Name<'_>) -> String {
    name.to_string().to_ascii_lowercase()
}

/// What a name server replies that has no answer to a question, with the code that says why (RFC 1035, section 4.1.1).
pub(crate) fn without_answer(question: &[u8], code: u8) -> Option<Vec<u8>> {
    let mut answer = question.get(..12)?.to_vec();
    // An answer, of the same kind and with the same wish for recursion; then that recursion is to be had, and the code.
    answer[2] = 0x80 | (answer[2] & 0x79);
    answer[3] = 0x80 | (code & 0x0f);
    // Of all else the question alone is repeated, without which some resolvers don't know what is answered.
    answer[4..12].fill(0);
    if let Some(section) = question_section(question) {
        answer[5] = 1;
        answer.extend_from_slice(section);
    }
    Some(answer)
}

/// The question in a message that has just one: its name, type and class (RFC 1035, section 4.1.2).
pub(crate) fn question_section(message: &[u8]) -> Option<&[u8]> {
    const HEADER: usize = 12;
    const LABEL: u8 = 63;
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut end = HEADER;
    loop {
        match *message.get(end)? {
            0 => break,
            length @ 1..=LABEL => end = end.checked_add(1)?.checked_add(length.into())?,
            _ => return None,
        }
    }
    // The name's end, type and class.
    message.get(HEADER..end.checked_add(5)?)
}
