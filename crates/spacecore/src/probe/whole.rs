//! An answer that is wanted whole.

use spacecore::wire::MAX_PAGE;

/// The longest head of an answer in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The page in what has come so far, once it is there or can't come any more; `ended` says that nothing more comes.
pub(super) fn page(answer: &[u8], ended: bool) -> Option<Result<Vec<u8>, String>> {
    let Some(end) = answer.windows(4).take(MAX_HEAD).position(|window| window == b"\r\n\r\n") else {
        let is_lost = ended || answer.len() > MAX_HEAD;
        return is_lost.then(|| Err("the answer's head has no end".to_owned()));
    };
    let (head, page) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head);
    let length = match length(&head) {
        Ok(length) => length,
        Err(failure) => return Some(Err(failure)),
    };
    if length.unwrap_or(page.len()) > MAX_PAGE {
        return Some(Err(format!("the page has more than {MAX_PAGE} bytes")));
    }
    match length {
        Some(length) if page.len() >= length => Some(Ok(page[..length].to_vec())),
        Some(length) if ended => Some(Err(format!("{} of {length} bytes came", page.len()))),
        None if ended => Some(Ok(page.to_vec())),
        Some(_) | None => None,
    }
}

/// How long the page is, if its head says so.
fn length(head: &str) -> Result<Option<usize>, String> {
    super::judge(head.as_bytes())?;
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("200") {
        return Err(format!("it answered: {}", first.get(..200).unwrap_or(first)));
    }
    let mut length = None;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("it answers in chunks to a request that doesn't allow that".to_owned());
        }
        if name.eq_ignore_ascii_case("content-encoding") && !value.eq_ignore_ascii_case("identity") {
            return Err("the page is packed (gzip or alike), which wasn't asked for".to_owned());
        }
        if name.eq_ignore_ascii_case("content-length") {
            let said = value.parse().map_err(|_| "the page's length isn't a number".to_owned())?;
            if length.replace(said).is_some_and(|other| other != said) {
                return Err("the page has two lengths".to_owned());
            }
        }
    }
    Ok(length)
}
