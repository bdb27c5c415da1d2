//! Names and paths of an archive: where they lead, and that they lead nowhere else.

use super::{ArchiveError, MAX_DEPTH, MAX_NAME, MAX_PATH};

/// The names that a path consists of; none for the root itself.
///
/// # Errors
/// It is absolute, has a `..` or a zero byte in it, or is longer or deeper than can be copied.
pub(super) fn names(path: &[u8]) -> Result<Vec<&[u8]>, ArchiveError> {
    let bad = |what| Err(ArchiveError::path(path, what));
    if path.len() > MAX_PATH {
        return bad("a path has at most 4095 bytes");
    }
    if path.contains(&0) {
        return bad("a path has no zero byte in it");
    }
    if path.first() == Some(&b'/') {
        return bad("a path in an archive isn't absolute");
    }
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return bad("a path with \"..\" in it could lead out of its folder"),
            _ if name.len() > MAX_NAME => return bad("a name has at most 255 bytes"),
            _ => names.push(name),
        }
    }
    if names.len() > MAX_DEPTH {
        return bad("it lies in more than 200 folders");
    }
    Ok(names)
}

/// Names as one path; `.` for none.
pub(super) fn joined(names: &[&[u8]]) -> Vec<u8> {
    match names {
        [] => b".".to_vec(),
        _ => names.join(&b'/'),
    }
}

/// A path that a person named, as the folder that holds it and its name there; the name is none for what has none of its own:
/// `/`, `.`, `..`, and what ends with one of them.
pub(super) fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let trimmed = &path[..end];
    let (folder, name) = match trimmed.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (&b"/"[..], &trimmed[1..]),
        Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
        None if path.first() == Some(&b'/') => (&b"/"[..], trimmed),
        None => (&b"."[..], trimmed),
    };
    match name {
        b"" | b"." | b".." => (path, None),
        _ => (folder, Some(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_its_names_and_leads_nowhere_else() {
        assert_eq!(names(b"./a//b/").unwrap(), [b"a", b"b"]);
        assert!(names(b"").unwrap().is_empty());
        for bad in [&b"/etc/passwd"[..], b"a/../../b", b"..", b"a\0b", &[b'a'; 256], &[b'/'; 5000]] {
            assert!(names(bad).is_err(), "{bad:?}");
        }
        assert!(names(&b"d/".repeat(MAX_DEPTH + 1)).is_err());
    }

    #[test]
    fn a_named_path_is_cut_into_folder_and_name() {
        assert_eq!(split(b"/a/b/"), (&b"/a"[..], Some(&b"b"[..])));
        assert_eq!(split(b"/a"), (&b"/"[..], Some(&b"a"[..])));
        assert_eq!(split(b"a"), (&b"."[..], Some(&b"a"[..])));
        assert_eq!(split(b"/"), (&b"/"[..], None));
        assert_eq!(split(b"a/."), (&b"a/."[..], None));
        assert_eq!(split(b".."), (&b".."[..], None));
    }
}
