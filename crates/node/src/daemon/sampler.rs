//! Measures the load of deployments that scale by themselves, and tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use hac::model::ScalingMetric;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::call::Call;
use super::core::Happening;
use super::observer::Observed;
use super::view::StatsView;

/// From one measurement to the next.
const PERIOD: Duration = Duration::from_secs(5);
/// How long the guests may take to answer, all together.
const PATIENCE: Duration = Duration::from_secs(2);

/// A deployment that is to be measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) deployment: String,
    pub(super) metric: ScalingMetric,
    /// The series of the workload's own, where one decides.
    pub(super) series: Option<String>,
    /// What each spacecore may use, in thousandths of a processor.
    pub(super) cpu_milli: u32,
    /// Those that are ready.
    pub(super) spacecores: Vec<String>,
}

/// What a spacecore had computed when it was measured last.
type Before = BTreeMap<String, (u64, Instant)>;

/// Measures until the node ends.
pub(super) async fn run(tell: UnboundedSender<Happening>, observed: Observed) {
    let mut before = Before::new();
    loop {
        tokio::time::sleep(PERIOD).await;
        let (reply, wanted) = oneshot::channel();
        if tell.send(Happening::ToMeasure(reply)).is_err() {
            return;
        }
        let Ok(wanted) = wanted.await else { return };
        let mut seen = Before::new();
        for one in wanted {
            let samples = match &one.series {
                Some(series) => own(&observed, &one.spacecores, series),
                None => measure(&tell, &one, &before, &mut seen).await,
            };
            let _ = tell.send(Happening::Load { deployment: one.deployment, samples });
        }
        before = seen;
    }
}

/// What these spacecores use, as far as they say so in time: one that has ended meanwhile says as little as one that is stuck.
pub(super) async fn ask_all(
    tell: &UnboundedSender<Happening>,
    spacecores: &[String],
    until: Instant,
) -> BTreeMap<String, StatsView> {
    let ask = |name: &String| {
        let (reply, answer) = oneshot::channel();
        let asked = tell.send(Happening::Call(Call::Stats { name: name.clone(), reply }));
        async move {
            asked.ok()?;
            timeout_at(until, answer).await.ok()?.ok()?.ok()
        }
    };
    let answers = join_all(spacecores.iter().map(ask)).await;
    answers.into_iter().flatten().map(|stats| (stats.name.clone(), stats)).collect()
}

/// One sample from each spacecore that answers, in thousandths of what it may use.
async fn measure(
    tell: &UnboundedSender<Happening>,
    wanted: &Measured,
    before: &Before,
    seen: &mut Before,
) -> Vec<u64> {
    let mut samples = Vec::new();
    for stats in ask_all(tell, &wanted.spacecores, Instant::now() + PATIENCE).await.into_values() {
        let now = Instant::now();
        let earlier = before.get(&stats.name).copied();
        seen.insert(stats.name.clone(), (stats.cpu_us, now));
        samples.extend(match wanted.metric {
            ScalingMetric::Cpu => earlier.and_then(|(used_us, at)| {
                share(stats.cpu_us.checked_sub(used_us)?, now.duration_since(at), wanted.cpu_milli)
            }),
            ScalingMetric::Memory => memory(&stats),
            ScalingMetric::Connections | ScalingMetric::Requests | ScalingMetric::Workload => None,
        });
    }
    samples
}

/// What the pages of these spacecores say of a series, in tenths: where percents are targets, a thousandth is a tenth.
fn own(observed: &Observed, spacecores: &[String], series: &str) -> Vec<u64> {
    let seen = observed.seen();
    let pages = spacecores.iter().filter_map(|name| seen.get(name)?.page.as_ref());
    pages.filter_map(|page| tenths(page.sum(series)?)).collect()
}

/// A number in tenths, where it is one that can be compared with a count.
fn tenths(value: f64) -> Option<u64> {
    // More than any target can ask for.
    const MOST: f64 = 1e15;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    value.is_finite().then(|| (value.clamp(0.0, MOST) * 10.0) as u64)
}

/// What of its processors a spacecore has used, in thousandths.
fn share(used_us: u64, time: Duration, cpu_milli: u32) -> Option<u64> {
    let could_have = time.as_micros().checked_mul(u128::from(cpu_milli))?;
    u64::try_from(u128::from(used_us).checked_mul(1_000_000)?.checked_div(could_have)?).ok()
}

/// What of its memory a guest uses by its own word, in thousandths.
fn memory(stats: &StatsView) -> Option<u64> {
    let used = stats.guest_memory_total.saturating_sub(stats.guest_memory_available);
    used.checked_mul(1000)?.checked_div(stats.guest_memory_total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_compared_in_tenths() {
        assert_eq!(tenths(7.25), Some(72));
        assert_eq!((tenths(-3.0), tenths(f64::NAN), tenths(f64::INFINITY)), (Some(0), None, None));
        assert_eq!(tenths(1e300), Some(10_000_000_000_000_000));
    }

    #[test]
    fn a_share_is_of_what_the_manifest_gives() {
        let second = Duration::from_secs(1);
        assert_eq!(share(500_000, second, 1000), Some(500));
        assert_eq!(share(500_000, second, 500), Some(1000));
        assert_eq!(share(1_500_000, second, 2000), Some(750));
        assert_eq!(share(0, second, 100), Some(0));
        assert_eq!(share(5, Duration::ZERO, 100), None);
        assert_eq!(share(u64::MAX, Duration::from_micros(1), 1), None);
    }
}
