//! /etc/passwd and /etc/group, read by hand: a static binary must not call NSS.

use crate::exit::{Code, Failure, Result};
use crate::root::Root;
use services::Identity;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: String,
    pub shell: String,
}

impl User {
    /// That of a program which runs for a service and is none itself.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("PATH", crate::sys::PATH),
            ("LANG", "C.UTF-8"),
            ("HOME", &self.home),
            ("USER", &self.name),
            ("LOGNAME", &self.name),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

/// What a process becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: User,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Accounts {
    pub fn read(root: &Root) -> Result<Self> {
        Ok(Self::parse(
            &root.read("/etc/passwd")?.unwrap_or_default(),
            &root.read("/etc/group")?.unwrap_or_default(),
        ))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let [name, _, uid, gid, _, home, shell] = fields[..] else {
                    return None;
                };
                Some(User {
                    name: name.to_owned(),
                    uid: uid.parse().ok()?,
                    gid: gid.parse().ok()?,
                    home: home.to_owned(),
                    shell: shell.to_owned(),
                })
            })
            .collect();
        let groups = group
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let [name, _, gid, members] = fields[..] else {
                    return None;
                };
                Some(Group {
                    name: name.to_owned(),
                    gid: gid.parse().ok()?,
                    members: members
                        .split(',')
                        .filter(|m| !m.is_empty())
                        .map(str::to_owned)
                        .collect(),
                })
            })
            .collect();
        Accounts { users, groups }
    }

    /// By name or number; a number needs no entry.
    pub fn user(&self, who: &str) -> Option<User> {
        let number = who.parse::<u32>().ok();
        self.users
            .iter()
            .find(|u| u.name == who)
            .or_else(|| self.users.iter().find(|u| Some(u.uid) == number))
            .cloned()
            .or_else(|| {
                number.map(|uid| User {
                    name: who.to_owned(),
                    uid,
                    gid: uid,
                    home: "/".to_owned(),
                    shell: "/bin/sh".to_owned(),
                })
            })
    }

    fn group(&self, who: &str) -> Option<u32> {
        self.groups
            .iter()
            .find(|g| g.name == who)
            .map(|g| g.gid)
            .or_else(|| who.parse().ok())
    }

    /// `user` or `user:group`, as supervisord's `chown=` has it.
    pub fn owner(&self, who: &str) -> Result<(u32, Option<u32>), String> {
        let (user, group) = who.split_once(':').unwrap_or((who, ""));
        let found = self
            .user(user)
            .ok_or_else(|| format!("there is no user `{user}`"))?;
        let gid = match group {
            "" => found.gid,
            group => self
                .group(group)
                .ok_or_else(|| format!("there is no group `{group}`"))?,
        };
        Ok((found.uid, Some(gid)))
    }

    pub fn root(&self) -> Credentials {
        let user = self
            .user("0")
            .unwrap_or_else(|| unreachable!("a number needs no entry"));
        Credentials {
            gid: user.gid,
            groups: self.groups_of(&user, user.gid),
            user,
        }
    }

    /// The user's primary group and all groups that list it as a member, as initgroups(3).
    fn groups_of(&self, user: &User, gid: u32) -> Vec<u32> {
        let mut gids = vec![gid];
        for group in &self.groups {
            if group.members.contains(&user.name) && !gids.contains(&group.gid) {
                gids.push(group.gid);
            }
        }
        gids
    }

    /// # Errors
    ///
    /// A user or group that the box does not have.
    pub fn credentials(&self, service: &str, identity: &Identity) -> Result<Credentials> {
        let missing = |what: &str, name: &str| {
            Failure::new(
                Code::Config,
                format!("cannot start {service}: its {what} `{name}` does not exist in the box"),
            )
            .hint(format!(
                "the playbooks that make the {what} must be part of the recipe's layers"
            ))
        };
        let who = identity.user.as_deref().unwrap_or("0");
        let user = self.user(who).ok_or_else(|| missing("user", who))?;
        let gid = match &identity.group {
            Some(group) => self.group(group).ok_or_else(|| missing("group", group))?,
            None => user.gid,
        };
        let mut groups = self.groups_of(&user, gid);
        for group in &identity.supplementary_groups {
            let gid = self.group(group).ok_or_else(|| missing("group", group))?;
            if !groups.contains(&gid) {
                groups.push(gid);
            }
        }
        Ok(Credentials { user, gid, groups })
    }
}

/// What the container's user means for the services' own.
pub fn note() -> Option<String> {
    if !crate::sys::is_root() {
        return Some(format!(
            "all services run as {}, the container's user: their own users do not apply",
            crate::sys::who()
        ));
    }
    (!crate::sys::may_own(1, 1)).then(|| {
        "this container may not change users: all services run as its root, which has no rights over others; their own users do not apply".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            "root:x:0:0:root:/root:/bin/bash\nredis:x:100:101::/var/lib/redis:/usr/sbin/nologin\nbroken\n",
            "root:x:0:\nredis:x:101:\nssl:x:120:redis,other\nadm:x:4:\n",
        )
    }

    fn identity(user: &str, group: Option<&str>, more: &[&str]) -> Identity {
        Identity {
            user: Some(user.to_owned()),
            group: group.map(str::to_owned),
            supplementary_groups: more.iter().map(|g| (*g).to_owned()).collect(),
        }
    }

    #[test]
    fn a_user_gets_the_groups_that_list_it() {
        let got = accounts()
            .credentials("x", &identity("redis", None, &["adm"]))
            .unwrap();
        assert_eq!(
            (got.user.uid, got.gid, got.groups),
            (100, 101, vec![101, 120, 4])
        );
    }

    #[test]
    fn numbers_need_no_entry_and_names_do() {
        let got = accounts()
            .credentials("x", &identity("1234", Some("4"), &[]))
            .unwrap();
        assert_eq!((got.user.uid, got.gid), (1234, 4));
        let error = accounts()
            .credentials("app", &identity("nobody", None, &[]))
            .unwrap_err();
        assert!(error.message.contains("`nobody` does not exist"), "{error}");
    }
}
