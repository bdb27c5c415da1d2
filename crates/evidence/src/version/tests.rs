use proptest::prelude::*;

use super::*;

/// Each line is in order: `<` between what is older and what is newer, `=` between equals.
fn assert_order(scheme: Scheme, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for window in words.windows(3).step_by(2) {
            let [left, sign, right] = *window else { continue };
            let expected = if sign == "<" { Ordering::Less } else { Ordering::Equal };
            assert_eq!(scheme.compare(left, right), expected, "{scheme:?}: {left} {sign} {right}");
            assert_eq!(scheme.compare(right, left), expected.reverse(), "{scheme:?}: {right} against {left}");
        }
    }
}

#[test]
fn debian_versions_are_in_debian_s_order() {
    assert_order(
        Scheme::Dpkg,
        "1.0~rc1 < 1.0~rc1-1 < 1.0 = 1.0-0 < 1.0-1 < 1.0+dfsg-1 < 1.0.1 < 1.10 < 1:0.1
         0:1 = 1
         1.0-1 < 1.0-1+b1 < 1.0-1.1 < 1.0-2
         2.36-9+deb12u3 < 2.36-9+deb12u10
         1.0a < 1.0+
         007 = 7
         99999999999999999999 < 100000000000000000000
         1.2-3-4 < 1.2-3-5",
    );
}

#[test]
fn alpine_versions_are_in_alpine_s_order() {
    assert_order(
        Scheme::Apk,
        "1.0_alpha < 1.0_alpha1 < 1.0_beta < 1.0_pre2 < 1.0_rc1 < 1.0 < 1.0-r1 < 1.0_git20200101 < 1.0_p1 < 1.0a < 1.0b < 1.0.1
         3.0.12-r4 < 3.0.12-r10
         8.2.0015 < 8.2.002
         1.09 < 1.1 < 1.10
         1.2.3-r0 < 1.2.3-r1 < 1.2.4-r0
         0.1_pre2 < 0.1
         1.0_p9 < 1.0_p10
         1.0_rc1-r0 < 1.0-r0",
    );
}

#[test]
fn rpm_versions_are_in_rpm_s_order() {
    assert_order(
        Scheme::Rpm,
        "1.0~rc1 < 1.0 < 1.0^git1 < 1.0.1
         1.0-1.el9 < 1.0-2.el9 < 1.0-10.el9 < 1:0.9-1.el9
         0:1.0-1 = 1.0-1
         1.0a < 1.0.1
         a < 1
         1.0 = 1_0
         5.5p1 < 5.5p2 < 5.5p10
         1.0^ < 1.0^git1
         10xyz < 10.1xyz
         2.0.1 < 2.0.1a",
    );
}

#[test]
fn semantic_versions_are_in_the_specification_s_order() {
    assert_order(
        Scheme::SemVer,
        "1.0.0-alpha < 1.0.0-alpha.1 < 1.0.0-alpha.beta < 1.0.0-beta < 1.0.0-beta.2 < 1.0.0-beta.11 < 1.0.0-rc.1 < 1.0.0
         1.0.0 = v1.0.0 = 1.0.0+build = 1 = 1.0
         1.9.0 < 1.10.0 < 2.0.0
         0.0.0-20200101000000-abcdef < 0.0.0-20210101000000-abcdef < 0.0.1",
    );
}

#[test]
fn python_versions_are_in_pep_440_s_order() {
    assert_order(
        Scheme::Pep440,
        "not-a-version < 1.dev0 < 1.0.dev456 < 1.0a1 < 1.0a2.dev456 < 1.0a12.dev456 < 1.0a12 < 1.0b1.dev456 < 1.0b2 < 1.0b2.post345.dev456 < 1.0b2.post345 < 1.0rc1.dev456 < 1.0rc1 < 1.0 < 1.0+abc.5 < 1.0+abc.7 < 1.0+5 < 1.0.post456.dev34 < 1.0.post456 < 1.0.15 < 1.1.dev1 < 1!0.1
         1.0 = 1 = v1.0.0 = 1.0.0.0
         1.0alpha1 = 1.0a1 = 1.0-a.1 = 1.0_ALPHA_1
         1.0c1 = 1.0rc1 = 1.0pre1 = 1.0-preview-1
         1.0-1 = 1.0.post1 = 1.0r1 = 1.0rev1
         1.0a < 1.0a1
         1.0+ubuntu-1 = 1.0+ubuntu.1",
    );
}

#[test]
fn gem_versions_are_in_rubygems_order() {
    assert_order(
        Scheme::Gem,
        "1.0.a < 1.0.a.2 < 1.0.b1 < 1.0.rc1 < 1.0 = 1.0.0 = 1 < 1.0.1 < 1.10
         1.0.0-x86 < 1.0.0
         2.0.0.rc1 < 2.0.0.rc2 < 2.0.0",
    );
}

#[test]
fn composer_versions_are_in_php_s_order() {
    assert_order(
        Scheme::Composer,
        "1.0.0-dev < 1.0.0-alpha1 < 1.0.0-alpha2 < 1.0.0-beta1 < 1.0.0-RC1 < 1.0.0 < 1.0.0-p1 < 1.0.1 < 1.0.10
         v1.0 = 1.0.0.0 = 1 = 1.0.0-stable",
    );
}

fn any_version() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9v]{0,2}[0-9a-c.~^+_:!-]{0,8}",
        "([01]:)?[0-2](\\.[0-2]){0,3}((a|rc|_alpha|_p|\\.post|\\.dev|~rc|-r|-beta\\.)[0-2]{0,2}){0,2}",
        ".{0,6}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_order_is_total(a in any_version(), b in any_version(), c in any_version()) {
        for scheme in Scheme::ALL {
            prop_assert_eq!(scheme.compare(&a, &a), Ordering::Equal, "{:?}: {} is itself", scheme, a);
            prop_assert_eq!(
                scheme.compare(&a, &b), scheme.compare(&b, &a).reverse(), "{:?}: {} {}", scheme, a, b
            );
            let mut three = [&a, &b, &c];
            three.sort_by(|left, right| scheme.compare(left, right));
            prop_assert!(
                scheme.compare(three[0], three[2]).is_le(), "{:?}: {:?} isn't in order", scheme, three
            );
            if scheme.compare(&a, &b).is_eq() {
                prop_assert_eq!(
                    scheme.compare(&a, &c), scheme.compare(&b, &c), "{:?}: {} {} {}", scheme, a, b, c
                );
            }
        }
    }
}
