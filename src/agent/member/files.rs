//! What an application reads: the files of its imports and values, and the variables of its environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::broker::member::{
    IMPORTS_ENV_FILE, IMPORTS_FILE, ImportedMember, MemberWork, SECRETS_DIR, Secrets, VALUES_FILE,
};

/// Writes the files of a work into a folder, each whole or not at all.
///
/// # Errors
/// One of them cannot be written.
pub fn write(folder: &Path, work: &MemberWork, secrets: &Secrets) -> io::Result<()> {
    put(&folder.join(IMPORTS_FILE), &imports(&work.imports).to_string())?;
    put(&folder.join(IMPORTS_ENV_FILE), &script(&variables(work)))?;
    put(&folder.join(VALUES_FILE), &Value::Object(work.values.clone()).to_string())?;
    put_secrets(&folder.join(SECRETS_DIR), secrets)
}

/// The imports as JSON.
fn imports(imports: &BTreeMap<String, Vec<ImportedMember>>) -> Value {
    let member = |member: &ImportedMember| {
        let mut object = Map::from_iter([("name".to_owned(), json!(member.name))]);
        object.extend(member.variables.clone());
        Value::Object(object)
    };
    let list = |members: &Vec<ImportedMember>| Value::Array(members.iter().map(member).collect());
    Value::Object(imports.iter().map(|(name, members)| (name.clone(), list(members))).collect())
}

/// The variables of imports and values, by name.
#[must_use]
pub fn variables(work: &MemberWork) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (import, members) in &work.imports {
        let prefix = upper(import);
        all.insert(format!("{prefix}_SIZE"), members.len().to_string());
        for (at, member) in members.iter().enumerate() {
            let first = (at == 0).then(|| prefix.clone());
            for prefix in [format!("{prefix}_{at}")].into_iter().chain(first) {
                all.insert(format!("{prefix}_NAME"), member.name.clone());
                for (name, value) in &member.variables {
                    all.insert(format!("{prefix}_{}", upper(name)), text(value));
                }
            }
        }
    }
    let scalars =
        work.values.iter().filter(|(_, value)| value.is_string() || value.is_number() || value.is_boolean());
    all.extend(scalars.map(|(name, value)| (format!("VALUE_{}", upper(name)), text(value))));
    all
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A name as part of a variable.
fn upper(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// The variables as lines for a shell to source.
fn script(variables: &BTreeMap<String, String>) -> String {
    let mut script = String::new();
    for (name, value) in variables {
        // Inside of quotes nothing but the quote itself means something.
        let _ = writeln!(script, "{name}='{}'", value.replace('\'', r"'\''"));
    }
    script
}

/// Writes the secret files, and removes those that are no more.
fn put_secrets(folder: &Path, secrets: &Secrets) -> io::Result<()> {
    make(folder)?;
    let mut kept = BTreeSet::new();
    for (import, members) in secrets {
        for (member, variables) in members {
            let at = folder.join(import).join(member);
            make(&folder.join(import))?;
            make(&at)?;
            for (name, value) in variables {
                put(&at.join(name), value)?;
                kept.insert(at.join(name));
            }
        }
    }
    sweep(folder, &kept)
}

/// Removes files that are not kept, and folders in which nothing is left.
fn sweep(folder: &Path, kept: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sweep(&path, kept)?;
            // One that is not empty stays.
            let _ = fs::remove_dir(&path);
        } else if !kept.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

/// Writes a file, whole or not at all; the application may run as another user. One that is the same is left alone: whoever
/// watches it must not be woken for nothing.
fn put(path: &Path, content: &str) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == content.as_bytes()) {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    fs::write(&part, content)?;
    fs::set_permissions(&part, fs::Permissions::from_mode(0o644))?;
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work() -> MemberWork {
        let member = |name: &str, ip: &str| ImportedMember {
            name: name.into(),
            variables: [("ip".into(), json!(ip)), ("port".into(), json!(8009))].into(),
        };
        let values = json!({"database": "shop's", "max-size": 3, "debug": true, "list": [1], "none": null});
        MemberWork {
            pod: "p".into(),
            revision: "r".into(),
            run: true,
            imports: [
                ("tomcat".into(), vec![member("tomcat-0", "10.1.0.7"), member("tomcat-1", "10.1.0.8")]),
                ("my.sql-db".into(), vec![]),
            ]
            .into(),
            values: values.as_object().unwrap().clone(),
            secrets: None,
        }
    }

    #[test]
    fn variables_name_import_member_and_export_and_the_first_member_without_its_number() {
        let expected = [
            ("MY_SQL_DB_SIZE", "0"),
            ("TOMCAT_0_IP", "10.1.0.7"),
            ("TOMCAT_0_NAME", "tomcat-0"),
            ("TOMCAT_0_PORT", "8009"),
            ("TOMCAT_1_IP", "10.1.0.8"),
            ("TOMCAT_1_NAME", "tomcat-1"),
            ("TOMCAT_1_PORT", "8009"),
            ("TOMCAT_IP", "10.1.0.7"),
            ("TOMCAT_NAME", "tomcat-0"),
            ("TOMCAT_PORT", "8009"),
            ("TOMCAT_SIZE", "2"),
            ("VALUE_DATABASE", "shop's"),
            ("VALUE_DEBUG", "true"),
            ("VALUE_MAX_SIZE", "3"),
        ];
        let expected: BTreeMap<_, _> =
            expected.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(variables(&work()), expected);
    }

    #[test]
    fn files_hold_what_the_work_says_and_secrets_that_are_gone_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name));
        let secrets: Secrets =
            [("db".into(), [("db-0".into(), [("password".into(), "swordfish".into())].into())].into())]
                .into();
        write(folder.path(), &work(), &secrets).unwrap();
        let imports: Value = serde_json::from_str(&read("imports.json").unwrap()).unwrap();
        assert_eq!(imports["tomcat"][1], json!({"name": "tomcat-1", "ip": "10.1.0.8", "port": 8009}));
        assert_eq!(imports["my.sql-db"], json!([]));
        assert!(read("imports.env").unwrap().contains("VALUE_DATABASE='shop'\\''s'\n"));
        assert!(read("values.json").unwrap().contains("\"max-size\":3"));
        assert_eq!(read("secrets/db/db-0/password").unwrap(), "swordfish");
        write(folder.path(), &work(), &Secrets::new()).unwrap();
        assert!(read("secrets/db/db-0/password").is_err());
        let left: Vec<_> = fs::read_dir(folder.path().join("secrets")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
