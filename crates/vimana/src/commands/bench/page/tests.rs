use serde_json::Value;

use super::super::report::tests::sample;
use super::*;

/// Reads the page as XML would be: every element that begins ends, in order. Returns how many there were.
fn elements(page: &str) -> Result<usize, String> {
    let mut open: Vec<&str> = Vec::new();
    let mut count = 0;
    let mut rest = page.strip_prefix("<!doctype html>").ok_or("no doctype")?;
    while let Some(at) = rest.find('<') {
        if rest[..at].contains('>') {
            return Err(format!("a bare > in {:?}", &rest[..at]));
        }
        let end = rest[at..].find('>').ok_or("a tag without end")? + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if tag.contains('<') || tag.matches('"').count() % 2 == 1 {
            return Err(format!("a broken tag: {tag}"));
        }
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> ends nothing"));
            }
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().unwrap_or_default());
        }
        count += 1;
    }
    if open.is_empty() { Ok(count) } else { Err(format!("not ended: {open:?}")) }
}

#[test]
fn the_page_is_well_formed_whatever_the_words_in_it() {
    let mut report = sample();
    report.missing.push(("</script><b>".to_owned(), "a \"quote\" & <!-- more".to_owned()));
    let page = page(&report);
    assert!(elements(&page).unwrap() > 100);
    assert!(page.contains("Some &lt;CPU&gt; &amp; more"));
}

#[test]
fn the_page_fetches_nothing_and_runs_nothing() {
    let page = page(&sample());
    for word in ["http://", "https://", "src=", "href=", "@import", "url(", "onload"] {
        assert!(!page.contains(word), "{word}");
    }
    assert_eq!(page.matches("<script").count(), 1);
    assert!(page.contains("<script type=\"application/json\""));
}

#[test]
fn the_numbers_on_the_page_are_those_of_the_json() {
    let report = sample();
    let page = page(&report);
    let (_, json) = page.split_once("id=\"report\">").unwrap();
    let (json, _) = json.split_once("</script>").unwrap();
    let embedded: Value = serde_json::from_str(json).unwrap();
    assert_eq!(embedded, report.json());
    for (row, measured) in report.rows.iter().zip(embedded["measurements"].as_array().unwrap()) {
        for result in measured["results"].as_array().unwrap() {
            let Some(median) = result["median"].as_f64() else {
                assert!(page.contains(result["absent"].as_str().unwrap()));
                continue;
            };
            let value = row.quantity.unit.show(median);
            assert!(page.contains(&format!("<span class=\"value\">{value}</span>")), "{value}");
            if let Some(ratio) = result["ratio"].as_f64() {
                assert!(page.contains(&format!("×{}", digits(ratio))), "{ratio}");
            }
        }
    }
}

#[test]
fn emulation_is_named_where_there_is_some() {
    let mut report = sample();
    assert!(!page(&report).contains("is emulated here"));
    report.subjects[2].id = "microvm-tcg".to_owned();
    assert!(page(&report).contains("is emulated here"));
}
