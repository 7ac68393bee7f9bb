//! The store as one SQLite file under the data directory, for its user only.
//!
//! The control plane and `ringway token` open it at the same time; each change is one transaction and on disk when it is
//! answered. Calls block, for as long as a disk takes.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use policy::peer::SpiffeId;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::{Grant, Issue, Token};

/// The file's name.
const FILE: &str = "ringway.db";

/// What `PRAGMA user_version` is when the tables are those of [`TABLES`].
const VERSION: i64 = 1;

/// Times are seconds since 1970; `allowed` is one identity per line.
const TABLES: &str = "
CREATE TABLE certificates (
    serial BLOB PRIMARY KEY,
    identity TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    issued_at INTEGER NOT NULL,
    issued_to TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_end ON certificates (not_after);
CREATE TABLE tokens (
    hash BLOB PRIMARY KEY,
    host TEXT NOT NULL,
    allowed TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    spent_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_host ON tokens (host);
";

/// How long a change waits for another process that is changing something.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How long what was issued is remembered after its end.
const REMEMBER: Duration = Duration::from_secs(30 * 24 * 3600);

/// A data directory's store.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// Why the store does not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made, or not be read.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("{path} can be read by others (mode {mode:o}); it has to be 600")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A newer version wrote it.
    #[error("{path} is of version {found}, this ringway reads {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// SQLite does not do what is asked.
    #[error("cannot use {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

impl Store {
    /// The store under `data_dir`, which is there already; the file is made if there is none.
    ///
    /// # Errors
    /// When it cannot be used: nothing is made anew in its place.
    pub fn open(data_dir: &Path) -> Result<Store, StoreError> {
        let path = data_dir.join(FILE);
        let failed = |source| StoreError::Open { path: path.clone(), source };
        // SQLite gives the files beside it the same mode.
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let mode = file.and_then(|file| file.metadata()).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StoreError::Mode { path, mode });
        }
        match connect(&path) {
            Ok(Ok(connection)) => Ok(Store { path, connection: Mutex::new(connection) }),
            Ok(Err(found)) => Err(StoreError::Version { path, found }),
            Err(source) => Err(StoreError::Sqlite { path, source }),
        }
    }

    /// Keeps a token that may be spent until `expires_at`.
    ///
    /// # Errors
    /// When it is not kept.
    pub fn add_token(
        &self,
        token: &Token,
        grant: &Grant,
        now: SystemTime,
        expires_at: SystemTime,
    ) -> Result<(), StoreError> {
        let allowed: Vec<_> = grant.allowed.iter().map(SpiffeId::as_str).collect();
        let row = params![token.hash(), grant.host, allowed.join("\n"), seconds(now), seconds(expires_at)];
        self.with(|connection| {
            let sql =
                "INSERT INTO tokens (hash, host, allowed, created_at, expires_at) VALUES (?, ?, ?, ?, ?)";
            connection.execute(sql, row).map(drop)
        })
    }

    /// What a token stands for, if it may be spent at `now`. It is not spent by this.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn look_at_token(&self, token: &Token, now: SystemTime) -> Result<Option<Grant>, StoreError> {
        self.with(|connection| {
            let sql =
                "SELECT host, allowed FROM tokens WHERE hash = ? AND spent_at IS NULL AND expires_at > ?";
            connection.query_row(sql, params![token.hash(), seconds(now)], grant).optional()
        })
    }

    /// Keeps that `issue` was issued, and spends the token that paid for it in the same breath. `false` when somebody else
    /// spent the token in between: then nothing was issued.
    ///
    /// # Errors
    /// When neither is kept.
    pub fn add_issue(&self, issue: &Issue, spends: Option<&Token>) -> Result<bool, StoreError> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let now = seconds(issue.issued_at);
            if let Some(token) = spends {
                let sql = "UPDATE tokens SET spent_at = ?2 WHERE hash = ?1 AND spent_at IS NULL AND expires_at > ?2";
                if transaction.execute(sql, params![token.hash(), now])? == 0 {
                    return Ok(false);
                }
            }
            let sql = "INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?)";
            let (begin, end) = (seconds(issue.not_before), seconds(issue.not_after));
            let row = params![issue.serial, issue.identity, begin, end, now, issue.issued_to];
            transaction.execute(sql, row)?;
            let forget = seconds(issue.issued_at.checked_sub(REMEMBER).unwrap_or(UNIX_EPOCH));
            transaction.execute("DELETE FROM certificates WHERE not_after < ?", [forget])?;
            transaction.commit()?;
            Ok(true)
        })
    }

    /// What may be asked for from a host: what the newest token that it spent allowed. `None` if it never spent one.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn grant_of_host(&self, host: &str) -> Result<Option<Grant>, StoreError> {
        self.with(|connection| {
            let sql = "SELECT host, allowed FROM tokens WHERE host = ? AND spent_at IS NOT NULL \
                       ORDER BY spent_at DESC, created_at DESC LIMIT 1";
            connection.query_row(sql, [host], grant).optional()
        })
    }

    /// Every certificate that is good at `now`, by identity and then the newest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn valid_issues(&self, now: SystemTime) -> Result<Vec<Issue>, StoreError> {
        self.with(|connection| {
            let sql = "SELECT serial, identity, not_before, not_after, issued_at, issued_to FROM certificates \
                       WHERE not_after > ? ORDER BY identity, issued_at DESC, not_after DESC, serial";
            let mut statement = connection.prepare(sql)?;
            statement.query_map([seconds(now)], issue)?.collect()
        })
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        // A transaction that a panic cut off was rolled back.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        ask(&mut connection).map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }
}

/// A connection to tables of [`VERSION`]; inner `Err` when they are of another.
fn connect(path: &Path) -> rusqlite::Result<Result<Connection, i64>> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A token that was spent stays spent, whatever happens to the machine.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        0 => {
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        VERSION => {}
        found => return Ok(Err(found)),
    }
    transaction.commit()?;
    Ok(Ok(connection))
}

fn grant(row: &Row<'_>) -> rusqlite::Result<Grant> {
    let allowed: String = row.get(1)?;
    // What is no identity allows nobody anything.
    let allowed = allowed.lines().filter_map(|text| SpiffeId::parse(text).ok()).collect();
    Ok(Grant { host: row.get(0)?, allowed })
}

fn issue(row: &Row<'_>) -> rusqlite::Result<Issue> {
    Ok(Issue {
        serial: row.get(0)?,
        identity: row.get(1)?,
        not_before: time(row.get(2)?),
        not_after: time(row.get(3)?),
        issued_at: time(row.get(4)?),
        issued_to: row.get(5)?,
    })
}

fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().try_into().unwrap_or(i64::MAX)
}

fn time(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(seconds.try_into().unwrap_or_default());
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn vm1(allowed: &[&str]) -> Grant {
        let allowed = allowed.iter().map(|id| SpiffeId::parse(id).unwrap()).collect();
        Grant { host: "vm1".into(), allowed }
    }

    fn issue(serial: u8, identity: &str, issued: u64, end: u64) -> Issue {
        let (not_before, not_after, issued_at) = (at(issued - 60), at(end), at(issued));
        let issued_to = "uid 0".into();
        Issue { serial: vec![serial], identity: identity.into(), not_before, not_after, issued_at, issued_to }
    }

    #[test]
    fn a_token_is_spent_once_in_time_and_is_nowhere_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let grant = vm1(&["spiffe://m/ns/shop/sa/web", "spiffe://m/ns/shop/sa/pay"]);
        let (token, unknown) = (Token::new().unwrap(), Token::new().unwrap());
        store.add_token(&token, &grant, at(100), at(200)).unwrap();
        for (token, now, expected) in
            [(&token, 199, Some(&grant)), (&token, 200, None), (&unknown, 150, None)]
        {
            assert_eq!(store.look_at_token(token, at(now)).unwrap().as_ref(), expected, "at {now}");
        }
        assert_eq!(store.grant_of_host("vm1").unwrap(), None, "it is not spent yet");
        let host = "spiffe://m/host/vm1";
        assert!(!store.add_issue(&issue(1, host, 200, 900), Some(&token)).unwrap(), "too late");
        assert!(!store.add_issue(&issue(2, host, 150, 900), Some(&unknown)).unwrap());
        assert!(store.add_issue(&issue(3, host, 150, 900), Some(&token)).unwrap());
        assert!(!store.add_issue(&issue(4, host, 150, 900), Some(&token)).unwrap(), "twice");
        assert_eq!(store.look_at_token(&token, at(150)).unwrap(), None);
        assert_eq!(store.grant_of_host("vm1").unwrap(), Some(grant));
        assert_eq!(store.grant_of_host("vm2").unwrap(), None);
        let serials = store.valid_issues(at(150)).unwrap().into_iter().map(|of| of.serial);
        assert_eq!(serials.collect::<Vec<_>>(), [[3]], "what a token did not pay for is not there");
        let secret = &token.reveal().as_bytes()[20..];
        for file in fs::read_dir(folder.path()).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                path.display()
            );
            let content = fs::read(&path).unwrap();
            assert!(!content.windows(secret.len()).any(|part| part == secret), "{}", path.display());
        }
    }

    #[test]
    fn what_a_host_may_ask_for_is_what_its_newest_token_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        for (serial, account) in [(1, "web"), (2, "pay")] {
            let token = Token::new().unwrap();
            let grant = vm1(&[&format!("spiffe://m/ns/shop/sa/{account}")]);
            store.add_token(&token, &grant, at(100), at(900)).unwrap();
            let spent = issue(serial, "spiffe://m/host/vm1", 100 + u64::from(serial), 900);
            assert!(store.add_issue(&spent, Some(&token)).unwrap());
            assert_eq!(store.grant_of_host("vm1").unwrap(), Some(grant));
        }
    }

    #[test]
    fn what_was_issued_is_listed_until_its_end_and_forgotten_a_month_later() {
        let folder = tempfile::tempdir().unwrap();
        let month = REMEMBER.as_secs();
        let (web, pay) = ("spiffe://m/ns/shop/sa/web", "spiffe://m/ns/shop/sa/pay");
        let store = Store::open(folder.path()).unwrap();
        for of in [issue(1, web, 100, 500), issue(2, pay, 110, 300), issue(3, web, 120, 600)] {
            assert!(store.add_issue(&of, None).unwrap());
        }
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        let serials = |now| -> Vec<u8> {
            store.valid_issues(at(now)).unwrap().into_iter().map(|of| of.serial[0]).collect()
        };
        assert_eq!(store.valid_issues(at(0)).unwrap()[0], issue(2, pay, 110, 300));
        assert_eq!((serials(299), serials(300), serials(600)), (vec![2, 3, 1], vec![3, 1], vec![]));
        assert!(store.add_issue(&issue(4, web, 400 + month, 9 * month), None).unwrap());
        assert_eq!(serials(0), [4, 3, 1], "that of 300 is forgotten");
        assert!(store.add_issue(&issue(4, web, 500, 700), None).is_err(), "a serial is used once");
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let said = || Store::open(folder.path()).unwrap_err().to_string();
        drop(Store::open(folder.path()).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
        assert_eq!(said(), format!("{} is of version 7, this ringway reads 1", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let mode = format!("{} can be read by others (mode 640); it has to be 600", path.display());
        assert_eq!(said(), mode);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let text = "no database at all, but some text that is long enough to be looked at".repeat(20);
        fs::write(&path, &text).unwrap();
        assert_eq!(said(), format!("cannot use {}", path.display()));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let nowhere = Store::open(&folder.path().join("nowhere")).unwrap_err().to_string();
        assert!(nowhere.starts_with("cannot open "), "{nowhere}");
    }
}
