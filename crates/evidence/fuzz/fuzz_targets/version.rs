//! Every order of versions is total, whatever is compared.
//!
//! `cargo +nightly fuzz run version` in `crates/evidence`.

#![no_main]

use evidence::version::Scheme;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|versions: (&str, &str, &str)| {
    let (a, b, c) = versions;
    for scheme in Scheme::ALL {
        assert_eq!(scheme.compare(a, b), scheme.compare(b, a).reverse());
        let mut three = [a, b, c];
        three.sort_by(|left, right| scheme.compare(left, right));
        assert!(scheme.compare(three[0], three[1]).is_le());
        assert!(scheme.compare(three[1], three[2]).is_le());
        assert!(scheme.compare(three[0], three[2]).is_le());
    }
});
