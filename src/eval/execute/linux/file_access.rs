//! Landlock: which files a program reaches, and no TCP port.

use super::super::confine::Setting;
use crate::error::{Error, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use nix::errno::Errno;
use std::io;
use std::path::Path;

/// The newest generation whose rights are used; a kernel that knows fewer enforces those it knows.
const GENERATION: ABI = ABI::V6;

/// What an interpreter reads beside its own folders: libraries, the loader's and OpenSSL's settings, the clock's, package stores.
const READABLE: [&str; 12] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/ssl/openssl.cnf",
    "/nix/store",
    "/gnu/store",
    "/dev/random",
    "/dev/urandom",
];

pub(super) struct FileAccess {
    ruleset: Option<RulesetCreated>,
}

impl FileAccess {
    pub(super) fn new(setting: &Setting) -> Result<Self> {
        let python = setting.python;
        let own = python.prefixes.iter().map(|prefix| prefix.as_path()).chain(python.path.iter().map(Path::new));
        let read: Vec<&Path> = own.chain(READABLE.iter().map(Path::new)).filter(|path| path.is_absolute()).collect();
        let create = || -> std::result::Result<RulesetCreated, RulesetError> {
            Ruleset::default()
                .handle_access(AccessFs::from_all(GENERATION))?
                .handle_access(AccessNet::from_all(GENERATION))?
                .scope(Scope::from_all(GENERATION))?
                .create()?
                .add_rules(path_beneath_rules(read, AccessFs::from_read(GENERATION)))?
                .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?
                .add_rules(path_beneath_rules([setting.around], AccessFs::from_all(GENERATION)))
        };
        let ruleset = create().map_err(|error| Error::failed(format!("Landlock: {error}")))?;
        Ok(Self { ruleset: Some(ruleset) })
    }

    pub(super) fn restrict(&mut self) -> io::Result<()> {
        let Some(ruleset) = self.ruleset.take() else { return Ok(()) };
        match ruleset.restrict_self() {
            Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Ok(()),
            // The crate's own errors would have to be allocated to be told.
            Ok(_) => Err(Errno::EOPNOTSUPP.into()),
            Err(_) => Err(Errno::last().into()),
        }
    }
}
