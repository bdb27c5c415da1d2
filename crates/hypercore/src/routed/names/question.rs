//! What becomes of a question: a pure function of its bytes, the policy, and who the siblings are.

use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, OPCODE, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::DOMAIN;
use crate::network::questions::{REFUSED, lower, question_section, without_answer};
use crate::network::{Policy, is_public};

/// Codes of replies without an answer (RFC 1035, section 4.1.1).
const MALFORMED: u8 = 1;
pub(super) const SERVER_FAILED: u8 = 2;
const NOT_IMPLEMENTED: u8 = 4;

/// How many seconds a sibling's address may be kept: it is another after its next start.
const HOLDS: u32 = 5;

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is none.
    Silence,
    /// This is the reply.
    Reply(Vec<u8>),
    /// A resolver is asked.
    Ask,
}

/// Judges a message of the guest's; `siblings` has the addresses of a spacecore of the same private network.
pub(super) fn judge(question: &[u8], policy: &Policy, siblings: impl Fn(&str) -> Vec<IpAddr>) -> Judged {
    let without = |code| without_answer(question, code).map_or(Judged::Silence, Judged::Reply);
    let Some(is_answer) = question.get(2).map(|flags| flags & 0x80 != 0) else { return Judged::Silence };
    if is_answer {
        return Judged::Silence;
    }
    let Ok(packet) = Packet::parse(question) else { return without(MALFORMED) };
    if packet.opcode() != OPCODE::StandardQuery {
        return without(NOT_IMPLEMENTED);
    }
    let [asked] = packet.questions.as_slice() else { return without(MALFORMED) };
    if question_section(question).is_none() {
        return without(MALFORMED);
    }
    let name = lower(&asked.qname);
    if let Some(sibling) = sibling(&name) {
        let found = siblings(sibling);
        if !found.is_empty() || name.contains('.') || name == DOMAIN {
            return reply(&packet, &found).map_or_else(|| without(SERVER_FAILED), Judged::Reply);
        }
    }
    // Who is in the machine's own network, and which names its people have for that, is nobody's business.
    if !name.contains('.') || is_of_nobody_public(&name) {
        return reply(&packet, &[]).map_or_else(|| without(SERVER_FAILED), Judged::Reply);
    }
    if policy.may_ask(question) { Judged::Ask } else { without(REFUSED) }
}

/// Whether a name in lower case stands for an address that isn't public, for asking who has it (RFC 1035, section 3.5, and
/// RFC 3596, section 2.5); what stands for no address is of nobody.
fn is_of_nobody_public(name: &str) -> bool {
    let address: Option<IpAddr> = if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<&str> = labels.rsplit('.').collect();
        octets.join(".").parse().ok().map(IpAddr::V4)
    } else if let Some(labels) = name.strip_suffix(".ip6.arpa") {
        let digits: String = labels.rsplit('.').filter(|label| label.len() == 1).collect();
        let whole = (digits.len() == 32).then(|| u128::from_str_radix(&digits, 16).ok()).flatten();
        whole.map(|bits| IpAddr::V6(bits.into()))
    } else {
        return false;
    };
    address.is_none_or(|address| !is_public(address))
}

/// The question as it is put to a resolver: its name, type and class, and whether it has room for more (EDNS, RFC 6891) and wants
/// signatures with it. Everything else that a message can carry is left out.
pub(super) fn for_resolver(question: &[u8], number: [u8; 2]) -> Option<Vec<u8>> {
    const ROOM: u16 = 1232;
    let section = question_section(question)?;
    let flags = question.get(2..4)?;
    let rest = question.get(12..)?.get(section.len()..)?;
    // The root's name, then the type 41; room, and the bit by which signatures are wanted.
    let wants_signatures = match rest {
        [0, 0, 41, _, _, _, _, flags, ..] => Some(flags & 0x80),
        _ => None,
    };
    // Whether recursion is wanted, and answers that nobody has checked.
    let head = [
        number[0],
        number[1],
        flags[0] & 0x01,
        flags[1] & 0x10,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(wants_signatures.is_some()),
    ];
    let [high, low] = ROOM.to_be_bytes();
    let room = wants_signatures.map(|bit| [0, 0, 41, high, low, 0, 0, bit, 0, 0, 0]);
    Some([&head[..], section, room.as_ref().map_or(&[][..], |room| &room[..])].concat())
}

/// Whether two questions for resolvers are the same but for their numbers.
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.get(2..) == other.get(2..)
}

/// The sibling that a name in lower case may mean: a word alone, or one below [`DOMAIN`].
fn sibling(name: &str) -> Option<&str> {
    match name.split_once('.') {
        None => Some(name),
        Some(_) => name.strip_suffix(DOMAIN)?.strip_suffix('.'),
    }
}

/// The reply to a question for a sibling; none of these addresses means that there is no such one.
fn reply(question: &Packet<'_>, found: &[IpAddr]) -> Option<Vec<u8>> {
    let asked = question.questions.first()?;
    let mut reply = Packet::new_reply(question.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    if question.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if found.is_empty() {
        *reply.rcode_mut() = RCODE::NameError;
    }
    let wants = |kind: TYPE| asked.qtype == QTYPE::ANY || asked.qtype == QTYPE::TYPE(kind);
    for address in found {
        let data = match address {
            IpAddr::V4(address) if wants(TYPE::A) => RData::A(A { address: (*address).into() }),
            IpAddr::V6(address) if wants(TYPE::AAAA) => RData::AAAA(AAAA { address: (*address).into() }),
            _ => continue,
        };
        reply.answers.push(ResourceRecord::new(asked.qname.clone(), CLASS::IN, HOLDS, data));
    }
    reply.questions.push(asked.clone());
    reply.build_bytes_vec().ok()
}

/// Whether a message answers a question: it is an answer, has its number, and repeats it.
pub(super) fn is_answer(message: &[u8], question: &[u8]) -> bool {
    let number = |message: &[u8]| message.first_chunk::<2>().copied();
    let says_so = message.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let (Some(repeated), Some(asked)) = (question_section(message), question_section(question)) else {
        return false;
    };
    // Names mean the same in capitals; type and class, the last four bytes, are numbers.
    let same = repeated.eq_ignore_ascii_case(asked) && repeated.last_chunk::<4>() == asked.last_chunk::<4>();
    says_so && same && number(message) == number(question)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Rule, Who};
    use proptest::prelude::*;
    use simple_dns::{Name, QCLASS, Question};

    fn question(name: &str, kind: TYPE) -> Vec<u8> {
        let mut packet = Packet::new_query(7);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        let name = Name::new_unchecked(name).into_owned();
        packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        packet.build_bytes_vec().unwrap()
    }

    fn of(names: &[&str]) -> Policy {
        let rule = |name: &&str| Rule { who: Who::Name((*name).to_owned()), ports: None, protocol: None };
        Policy { to: names.iter().map(rule).collect(), ..Policy::default() }
    }

    fn siblings(name: &str) -> Vec<IpAddr> {
        match name {
            "db" => vec!["10.213.0.6".parse().unwrap(), "fd00::6".parse().unwrap()],
            _ => Vec::new(),
        }
    }

    fn replied(judged: Judged) -> (RCODE, Vec<IpAddr>) {
        let Judged::Reply(reply) = judged else { panic!("{judged:?}") };
        let packet = Packet::parse(&reply).unwrap();
        assert!(packet.id() == 7 && packet.has_flags(PacketFlag::RESPONSE) && packet.questions.len() == 1);
        let address = |record: &ResourceRecord<'_>| match &record.rdata {
            RData::A(a) => IpAddr::from(std::net::Ipv4Addr::from(a.address)),
            RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).into(),
            other => panic!("{other:?}"),
        };
        (packet.rcode(), packet.answers.iter().map(address).collect())
    }

    #[test]
    fn a_sibling_is_found_by_its_name_alone_and_below_the_domain_whatever_the_policy_says() {
        for policy in [Policy::default(), of(&[])] {
            for name in ["db", "DB.internal"] {
                let four = replied(judge(&question(name, TYPE::A), &policy, siblings));
                assert_eq!(four, (RCODE::NoError, vec!["10.213.0.6".parse().unwrap()]));
                let six = replied(judge(&question(name, TYPE::AAAA), &policy, siblings));
                assert_eq!(six, (RCODE::NoError, vec!["fd00::6".parse().unwrap()]));
                let none = replied(judge(&question(name, TYPE::MX), &policy, siblings));
                assert_eq!(none, (RCODE::NoError, Vec::new()));
            }
        }
    }

    #[test]
    fn a_name_below_the_domain_that_nobody_has_is_never_asked_for_outside() {
        for name in ["web.internal", "a.db.internal", "internal"] {
            let (code, found) = replied(judge(&question(name, TYPE::A), &Policy::default(), siblings));
            assert_eq!((code, found), (RCODE::NameError, Vec::new()), "{name}");
        }
    }

    #[test]
    fn a_list_of_names_is_all_that_may_be_asked_for() {
        let policy = of(&["example.com", "*.example.org"]);
        for name in ["example.com", "EXAMPLE.com", "a.b.example.org"] {
            assert_eq!(judge(&question(name, TYPE::A), &policy, siblings), Judged::Ask, "{name}");
        }
        for name in ["example.org", "example.net", "secret.example.com"] {
            let (code, _) = replied(judge(&question(name, TYPE::A), &policy, siblings));
            assert_eq!(code, RCODE::Refused, "{name}");
        }
        assert_eq!(judge(&question("example.net", TYPE::A), &Policy::default(), siblings), Judged::Ask);
    }

    #[test]
    fn names_of_the_machine_s_own_network_are_nobody_s() {
        let six = |text: &str| {
            let digits = format!("{:032x}", u128::from(text.parse::<std::net::Ipv6Addr>().unwrap()));
            digits.chars().rev().flat_map(|digit| [digit, '.']).chain("ip6.arpa".chars()).collect::<String>()
        };
        let closed =
            ["nas", "1.1.168.192.in-addr.arpa", "168.192.in-addr.arpa", "x.in-addr.arpa", &six("fd00::1")];
        for name in closed {
            let (code, found) = replied(judge(&question(name, TYPE::A), &Policy::default(), siblings));
            assert_eq!((code, found), (RCODE::NameError, Vec::new()), "{name}");
        }
        for name in ["8.8.8.8.in-addr.arpa", &six("2a00:1::1"), "example.com"] {
            assert_eq!(judge(&question(name, TYPE::A), &Policy::default(), siblings), Judged::Ask, "{name}");
        }
    }

    #[test]
    fn a_resolver_gets_nothing_of_a_guest_s_message_but_what_it_asks_for() {
        let plain = question("example.com", TYPE::A);
        assert_eq!(for_resolver(&plain, [1, 2]).unwrap(), [&[1, 2][..], &plain[2..]].concat());
        // Room for 4096 bytes, signatures wanted, and an option with a secret.
        let option =
            [0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 10, 0xfd, 0xe9, 0, 6, b's', b'e', b'c', b'r', b'e', b't'];
        let mut more = [&plain[..], &option].concat();
        more[11] = 1;
        let sent = for_resolver(&more, [1, 2]).unwrap();
        assert!(sent.ends_with(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]), "{sent:?}");
        assert!(
            Packet::parse(&sent).is_ok_and(|sent| sent.opt().is_some())
                && is_same(&sent, &for_resolver(&more, [3, 4]).unwrap())
        );
        let hidden = for_resolver(&[&plain[..], b"hidden"].concat(), [1, 2]).unwrap();
        assert_eq!(hidden.len(), plain.len());
    }

    #[test]
    fn what_is_no_question_gets_no_answer_and_what_is_no_plain_one_a_refusal() {
        let mut answer = question("db", TYPE::A);
        answer[2] |= 0x80;
        assert_eq!(judge(&answer, &Policy::default(), siblings), Judged::Silence);
        assert_eq!(judge(b"", &Policy::default(), siblings), Judged::Silence);
        let mut update = question("example.com", TYPE::A);
        update[2] |= 5 << 3;
        let Judged::Reply(reply) = judge(&update, &Policy::default(), siblings) else { panic!() };
        assert_eq!(reply[3] & 0x0f, NOT_IMPLEMENTED);
        let two = [
            &[0, 7, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0][..],
            &question("a.b", TYPE::A)[12..],
            &question("c.d", TYPE::A)[12..],
        ];
        let Judged::Reply(reply) = judge(&two.concat(), &Policy::default(), siblings) else { panic!() };
        assert_eq!(reply[3] & 0x0f, MALFORMED);
    }

    #[test]
    fn an_answer_is_one_with_the_number_and_the_question() {
        let asked = question("example.com", TYPE::A);
        let mut answer = question("eXample.com", TYPE::A);
        assert!(!is_answer(&answer, &asked), "a question");
        answer[2] |= 0x80;
        assert!(is_answer(&answer, &asked));
        let mut other = answer.clone();
        other[1] ^= 1;
        assert!(!is_answer(&other, &asked), "another number");
        for (name, kind) in [("example.org", TYPE::A), ("example.com", TYPE::AAAA)] {
            let mut other = question(name, kind);
            other[2] |= 0x80;
            assert!(!is_answer(&other, &asked), "another question");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), known in any::<bool>()) {
            let message = if known { [&question("db", TYPE::A)[..], &bytes].concat() } else { bytes };
            let _ = judge(&message, &of(&["example.com"]), siblings);
            let _ = is_answer(&message, &question("db", TYPE::A));
        }
    }
}
