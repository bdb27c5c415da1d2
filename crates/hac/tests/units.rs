//! Quantities read as people write them, print canonically, and refuse what doesn't fit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Display;
use std::str::FromStr;

use hac::units::*;
use proptest::prelude::*;

/// Checks that a text is read as a value that prints as the canonical text.
#[track_caller]
fn reads<T: FromStr<Err = UnitError> + Display + PartialEq + std::fmt::Debug>(
    text: &str,
    value: T,
    canonical: &str,
) {
    assert_eq!(text.parse::<T>().as_ref(), Ok(&value), "{text}");
    assert_eq!(value.to_string(), canonical);
}

#[track_caller]
fn refuses<T: FromStr<Err = UnitError> + std::fmt::Debug>(text: &str, reason: &str) {
    let error = text.parse::<T>().expect_err(text).to_string();
    assert!(error.contains(reason), "{text}: {error}");
}

#[test]
fn sizes_count_in_1024s_with_an_i_and_in_1000s_without() {
    reads("8Gi", Bytes(8 << 30), "8Gi");
    reads("512MiB", Bytes(512 << 20), "512Mi");
    reads("512mib", Bytes(512 << 20), "512Mi");
    reads("100MB", Bytes(100_000_000), "100MB");
    reads("100mb", Bytes(100_000_000), "100MB");
    reads("100M", Bytes(100_000_000), "100MB");
    reads(" 1.5 Gi ", Bytes(3 << 29), "1536Mi");
    reads("0.1Gi", Bytes(107_374_182), "107374182");
    reads("1k", Bytes(1000), "1KB");
    reads("1024", Bytes(1024), "1Ki");
    reads("0", Bytes(0), "0");
    reads("7B", Bytes(7), "7");
    reads("15Ei", Bytes(15 << 60), "15Ei");
    reads("18446744073709551615", Bytes(u64::MAX), "18446744073709551615");
    reads("0000000000000000000000000000000000000001Gi", Bytes(1 << 30), "1Gi");
}

#[test]
fn sizes_that_make_no_sense_are_refused() {
    refuses::<Bytes>("16Ei", "larger than the largest size");
    refuses::<Bytes>("18446744073709551616", "larger than the largest size");
    refuses::<Bytes>("99999999999999999999999999999999999999999Gi", "too many digits");
    refuses::<Bytes>("8Gx", "\"Gx\" isn't a unit of size");
    refuses::<Bytes>("8 Gi B", "isn't a unit of size");
    refuses::<Bytes>("-1", "doesn't start with a number");
    refuses::<Bytes>("", "doesn't start with a number");
    refuses::<Bytes>("Gi", "doesn't start with a number");
    refuses::<Bytes>("1.Gi", "doesn't start with a number");
    refuses::<Bytes>(".5Gi", "doesn't start with a number");
    refuses::<Bytes>("1.2.3Gi", "doesn't start with a number");
    refuses::<Bytes>("1e3", "isn't a unit of size");
    refuses::<Bytes>("１Gi", "doesn't start with a number");
}

#[test]
fn bandwidth_is_in_bits_and_a_bare_number_in_gbps() {
    reads("1Gbps", BitRate(1_000_000_000), "1Gbps");
    reads("10", BitRate(10_000_000_000), "10Gbps");
    reads("0.5", BitRate(500_000_000), "500Mbps");
    reads("100mbps", BitRate(100_000_000), "100Mbps");
    reads("64 kbps", BitRate(64_000), "64kbps");
    reads("9600bps", BitRate(9600), "9600bps");
    reads("2.5Gbit/s", BitRate(2_500_000_000), "2500Mbps");
    reads("0", BitRate(0), "0bps");
    refuses::<BitRate>("10MBps", "rate in bytes");
    refuses::<BitRate>("10Gpbs", "\"Gpbs\" isn't a unit of bandwidth");
    refuses::<BitRate>("10G", "isn't a unit of bandwidth");
    refuses::<BitRate>("99999999999Gbps", "larger than the largest rate");
    refuses::<BitRate>("0.5bps", "finer than 1bps");
}

#[test]
fn cpu_is_in_cores_or_thousandths() {
    reads("4", MilliCpu(4000), "4");
    reads("500m", MilliCpu(500), "500m");
    reads("0.5", MilliCpu(500), "500m");
    reads("1.50", MilliCpu(1500), "1500m");
    reads("0", MilliCpu(0), "0");
    refuses::<MilliCpu>("0.0001", "finer than 1m");
    refuses::<MilliCpu>("4294968", "larger than the largest CPU");
    refuses::<MilliCpu>("4 cores", "isn't a unit of CPU");
    assert_eq!([0, 1, 1000, 1001].map(|millis| MilliCpu(millis).vcpus()), [1, 1, 1, 2]);
}

#[test]
fn time_is_a_sum_of_units_or_bare_seconds() {
    reads("30s", Duration(30_000), "30s");
    reads("1m30s", Duration(90_000), "1m30s");
    reads("90", Duration(90_000), "1m30s");
    reads("500ms", Duration(500), "500ms");
    reads("1.5h", Duration(5_400_000), "1h30m");
    reads("1d 2h", Duration(93_600_000), "1d2h");
    reads("0", Duration(0), "0s");
    refuses::<Duration>("30x", "\"x\" isn't a unit of time");
    refuses::<Duration>("30 minutes", "isn't a unit of time");
    refuses::<Duration>("1m30", "isn't a unit of time");
    refuses::<Duration>("0.1ms", "finer than 1ms");
    refuses::<Duration>("300000000000d", "larger than the largest time");
    refuses::<Duration>("18446744073709551615ms 1ms", "larger than the largest time");
    assert_eq!(Duration(1500).as_std(), std::time::Duration::from_millis(1500));
}

#[test]
fn disk_rates_and_amounts_read_and_print() {
    reads("200MB/s", ByteRate(200_000_000), "200MB/s");
    reads("1Gi", ByteRate(1 << 30), "1Gi/s");
    reads("0.25", Amount(250_000_000), "0.25");
    reads("3", Amount(3_000_000_000), "3");
    refuses::<Amount>("0.0000000001", "finer than 0.000000001");
    refuses::<Amount>("3 ETH", "isn't a unit of price");
    refuses::<Amount>("18446744074", "larger than the largest amount");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_quantity_survives_printing(number in any::<u64>(), small in any::<u32>(), shift in 0u32..64) {
        let number = number >> shift;
        prop_assert_eq!(Bytes(number).to_string().parse(), Ok(Bytes(number)));
        prop_assert_eq!(ByteRate(number).to_string().parse(), Ok(ByteRate(number)));
        prop_assert_eq!(BitRate(number).to_string().parse(), Ok(BitRate(number)));
        prop_assert_eq!(Duration(number).to_string().parse(), Ok(Duration(number)));
        prop_assert_eq!(Amount(number).to_string().parse(), Ok(Amount(number)));
        prop_assert_eq!(MilliCpu(small).to_string().parse(), Ok(MilliCpu(small)));
    }

    #[test]
    fn round_sizes_print_as_they_are_written(count in 1u64..100, unit in 0usize..6) {
        let unit = ["Ki", "Mi", "Gi", "KB", "MB", "GB"][unit];
        let text = format!("{count}{unit}");
        let value: Bytes = text.parse().unwrap();
        prop_assert_eq!(value.to_string(), text);
    }

    #[test]
    fn no_text_panics_and_what_is_read_prints_as_the_same(text in "[0-9. kKmMgGtTpPeEiIbBsShd/ps]{0,24}|.{0,12}") {
        if let Ok(value) = text.parse::<Bytes>() { prop_assert_eq!(value.to_string().parse(), Ok(value)); }
        if let Ok(value) = text.parse::<ByteRate>() { prop_assert_eq!(value.to_string().parse(), Ok(value)); }
        if let Ok(value) = text.parse::<BitRate>() { prop_assert_eq!(value.to_string().parse(), Ok(value)); }
        if let Ok(value) = text.parse::<MilliCpu>() { prop_assert_eq!(value.to_string().parse(), Ok(value)); }
        if let Ok(value) = text.parse::<Duration>() { prop_assert_eq!(value.to_string().parse(), Ok(value)); }
        if let Ok(value) = text.parse::<Amount>() { prop_assert_eq!(value.to_string().parse(), Ok(value)); }
    }
}
