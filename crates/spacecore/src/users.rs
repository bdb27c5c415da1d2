//! Users and groups as the root file system names them, read from `/etc/passwd` and `/etc/group` alone.

use spacecore::wire::message::{Refusal, RefusalKind};

use spacecore::refusal::refuse;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, `gid` first.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1).unwrap_or("");
        Some(User { name, uid, gid, home })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _) = (fields.next()?, fields.next()?);
        let gid = fields.next()?.parse().ok()?;
        let members = fields.next().unwrap_or("");
        Some(Group { name, gid, members })
    })
}

/// Looks up `user`, `user:group`, `uid` or `uid:gid` with the meaning that OCI runtimes give it: a number that the
/// image doesn't know is taken as it is, a name that it doesn't know is refused; groups that list the user are added
/// unless a group is named.
///
/// # Errors
/// The image doesn't know the name.
pub(crate) fn look_up(wanted: &str, passwd: &str, group: &str) -> Result<Identity, Refusal> {
    let (user, named_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let known = users(passwd)
        .find(|known| known.name == user)
        .or_else(|| users(passwd).find(|known| Some(known.uid) == number));
    let (uid, default_gid, home, name) = match (&known, number) {
        (Some(known), _) => (known.uid, known.gid, known.home, known.name),
        (None, Some(uid)) => (uid, 0, if uid == 0 { "/root" } else { "" }, ""),
        (None, None) => return Err(unknown("user", user, "/etc/passwd")),
    };
    let gid = match named_group {
        Some(named) => find_group(named, group)?,
        None => default_gid,
    };
    let listed = |members: &str| !name.is_empty() && members.split(',').any(|member| member.trim() == name);
    let mut all = vec![gid];
    if named_group.is_none() {
        for known in groups(group).filter(|known| listed(known.members)) {
            if !all.contains(&known.gid) {
                all.push(known.gid);
            }
        }
    }
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    Ok(Identity { uid, gid, groups: all, home })
}

fn find_group(named: &str, group: &str) -> Result<u32, Refusal> {
    groups(group)
        .find(|known| known.name == named)
        .map(|known| known.gid)
        .or_else(|| named.parse().ok())
        .ok_or_else(|| unknown("group", named, "/etc/group"))
}

fn unknown(what: &str, name: &str, file: &str) -> Refusal {
    refuse(RefusalKind::User, format!("the image's {file} has no {what} {name:?}; a number needs no entry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33:Web:/srv/www:/bin/false\nnobody:x:65534:65534:::\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:\nlogs:x:40:web,root\nssl:x:41:other, web\n";

    fn identity(wanted: &str) -> Identity {
        look_up(wanted, PASSWD, GROUP).unwrap()
    }

    #[test]
    fn a_user_by_name_or_number_has_the_groups_that_list_it() {
        let web = Identity { uid: 33, gid: 33, groups: vec![33, 40, 41], home: "/srv/www".to_owned() };
        assert_eq!(identity("web"), web);
        assert_eq!(identity("33"), web);
        assert_eq!(identity("web:"), web);
    }

    #[test]
    fn a_named_group_replaces_all_others() {
        assert_eq!(identity("web:ssl").gid, 41);
        assert_eq!(identity("web:ssl").groups, [41]);
        assert_eq!(identity("web:77").gid, 77);
    }

    #[test]
    fn nobody_named_is_root() {
        assert_eq!((identity("").uid, identity("").home.as_str()), (0, "/root"));
        assert_eq!(look_up("", "", "").unwrap().home, "/root");
        assert_eq!(identity(":ssl").gid, 41);
    }

    #[test]
    fn numbers_need_no_entry() {
        let stranger = identity("1234:5678");
        assert_eq!((stranger.uid, stranger.gid, stranger.home.as_str()), (1234, 5678, "/"));
        assert_eq!(identity("1234").gid, 0);
        assert_eq!(identity("nobody").home, "/");
    }

    #[test]
    fn unknown_names_are_refused_by_name() {
        for wanted in ["ghost", "web:ghosts", "-1", "4294967296"] {
            let refusal = look_up(wanted, PASSWD, GROUP).unwrap_err();
            assert_eq!(refusal.kind, RefusalKind::User, "{wanted}");
        }
        assert!(look_up("ghost", PASSWD, GROUP).unwrap_err().message.contains("\"ghost\""));
    }
}
