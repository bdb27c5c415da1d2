//! Price, verification and conditions.

use std::collections::BTreeSet;

use crate::decode::Context;
use crate::model::{Condition, ConditionKind, Isolation, Spec, Verification, VerificationMode};
use crate::preset::least_quorum;

pub(super) fn check(spec: &Spec, context: &mut Context<'_>) {
    if spec.pricing.max_per_hour.is_some_and(|amount| amount.0 == 0) {
        let help = "remove the key to take any price".to_owned();
        context.conflict(&["spec.pricing.max_per_hour"], "nobody runs anything for 0", help);
    }
    let mut seen = BTreeSet::new();
    for (index, operator) in spec.placement.operators.iter().enumerate() {
        let path = format!("spec.placement.operators[{index}]");
        if operator.is_empty() {
            context.conflict(&[&path], "an operator has an empty name", None);
        } else if !seen.insert(operator) {
            context.conflict(&[&path], format!("the operator {operator:?} is listed twice"), None);
        }
    }
    verification(&spec.verification, spec.virtualization.isolation, context);
    for (index, condition) in spec.conditions.iter().enumerate() {
        check_condition(condition, &format!("spec.conditions[{index}]"), context);
    }
}

fn verification(verification: &Verification, isolation: Isolation, context: &mut Context<'_>) {
    const MODES: &str = "spec.verification.modes";
    const REPLICAS: &str = "spec.verification.replicas";
    const QUORUM: &str = "spec.verification.quorum";
    let Verification { modes, replicas, quorum } = verification;
    let compared = [VerificationMode::Redundant, VerificationMode::Consensus, VerificationMode::Mpc]
        .iter()
        .any(|mode| modes.contains(mode));
    if *replicas == 0 {
        context.conflict(&[REPLICAS], "at least one node must compute", "write 1 or more".to_owned());
        return;
    }
    if *replicas > 1 && !compared {
        context.conflict(
            &[REPLICAS, MODES],
            format!("{replicas} nodes would compute, and nothing compares their results"),
            "add \"redundant\", \"consensus\" or \"mpc\" to `modes`".to_owned(),
        );
    }
    if *replicas < 2 && compared {
        let help = "write 3 or more".to_owned();
        context.conflict(&[REPLICAS, MODES], "one node alone has nothing to compare with", help);
    } else if *replicas < 4 && modes.contains(&VerificationMode::Consensus) {
        context.conflict(
            &[REPLICAS, MODES],
            format!("{replicas} nodes can't agree when one of them lies"),
            "a committee that survives f liars has 3f+1 nodes: write 4, 7 or 10".to_owned(),
        );
    }
    let least = least_quorum(verification);
    if quorum > replicas {
        context.conflict(
            &[QUORUM, REPLICAS],
            format!("a quorum of {quorum} can't be reached by {replicas} nodes"),
            format!("write a quorum of {least} to {replicas}"),
        );
    } else if *quorum < least {
        context.conflict(
            &[QUORUM, REPLICAS],
            format!(
                "with a quorum of {quorum} out of {replicas}, two different results could both be accepted"
            ),
            format!("write a quorum of {least} to {replicas}"),
        );
    }
    if modes.contains(&VerificationMode::Replay) && isolation != Isolation::Wasm {
        context.conflict(
            &[MODES, "spec.virtualization.type"],
            format!("replay needs bit-exact execution, which {isolation} doesn't give"),
            "write type = \"Wasm\", or choose \"redundant\" instead of \"replay\"".to_owned(),
        );
    }
}

fn check_condition(condition: &Condition, path: &str, context: &mut Context<'_>) {
    let given = [
        ("after", condition.after.is_some()),
        ("height", condition.height.is_some()),
        ("environment", condition.environment.is_some()),
        ("account", condition.account.is_some()),
        ("at_least", condition.at_least.is_some()),
        ("zapp", condition.zapp.is_some()),
        ("answer", condition.answer.is_some()),
    ];
    let (needed, example): (&[&str], _) = match condition.kind {
        ConditionKind::Time => (&["after"], "after = \"2026-12-01T00:00:00Z\""),
        ConditionKind::Height => (&["height"], "height = 100000"),
        ConditionKind::Environment => (&["environment"], "environment = \"database\""),
        ConditionKind::Balance => (&["account", "at_least"], "account = \"acme\", at_least = \"10\""),
        ConditionKind::Zapp => (&["zapp", "answer"], "zapp = \"oracle\", answer = \"go\""),
    };
    for (key, is_given) in given {
        let at = format!("{path}.{key}");
        let is_needed = needed.contains(&key);
        if is_needed && !is_given {
            let message = format!("a condition of type {} needs `{key}`", condition.kind);
            context.conflict(&[&at], message, format!("for example: {example}"));
        } else if !is_needed && is_given {
            let message = format!("a condition of type {} has no `{key}`", condition.kind);
            context.conflict(&[&at, &format!("{path}.type")], message, format!("for example: {example}"));
        }
    }
    if condition.height.is_some_and(|height| height > i64::MAX.unsigned_abs()) {
        context.conflict(&[&format!("{path}.height")], "the chain never gets so high", None);
    }
    if let Some(after) = &condition.after
        && condition.kind == ConditionKind::Time
        && !is_utc(after)
    {
        context.conflict(
            &[&format!("{path}.after")],
            format!("{after:?} isn't a time in UTC"),
            "write it as in 2026-12-01T00:00:00Z".to_owned(),
        );
    }
}

/// Tells whether a text is RFC 3339's `YYYY-MM-DDTHH:MM:SSZ` with a day that exists.
fn is_utc(text: &str) -> bool {
    let bytes = text.as_bytes();
    let shape = b"0000-00-00T00:00:00Z";
    let fits = bytes.len() == shape.len()
        && bytes.iter().zip(shape).all(
            |(byte, wanted)| {
                if *wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted }
            },
        );
    if !fits {
        return false;
    }
    let number = |from: usize, to: usize| {
        text.get(from..to).and_then(|digits| digits.parse::<u32>().ok()).unwrap_or(0)
    };
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    };
    (1..=days).contains(&day) && number(11, 13) < 24 && number(14, 16) < 60 && number(17, 19) < 60
}
