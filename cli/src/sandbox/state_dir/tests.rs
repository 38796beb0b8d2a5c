use std::fs;

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn refused(folder: &Path) -> String {
    StateDir::open(Some(folder), 3).unwrap_err().to_string()
}

/// A run that writes what runs write, and a file into each folder.
fn run(folder: &Path, leaders: u8) -> StateDir {
    let state = StateDir::open(Some(folder), leaders).unwrap();
    state.write_kubeconfig("").unwrap();
    for name in ["agents", "hosts", "certificates"] {
        fs::create_dir_all(state.claim(name).unwrap().join("inner")).unwrap();
    }
    for id in 1..=leaders {
        fs::create_dir_all(state.leader_data(id).unwrap().join("inner")).unwrap();
        fs::write(state.log_of(&format!("leader-{id}")).unwrap(), "").unwrap();
    }
    state
}

#[test]
fn a_second_run_begins_anew_and_leaves_the_users_files() {
    let folder = tempfile::tempdir().unwrap();
    // Names that are much like a sandbox's.
    let users = ["leader-007", "leader-4", "leader-4.log", "leader-one", "leaders", "pods.yaml"];
    for name in users {
        fs::write(folder.path().join(name), "precious").unwrap();
    }
    let first = run(folder.path(), 3);
    assert!(!first.renewed());
    assert_eq!(names(folder.path()).len(), users.len() + 1 + 4 + 6);
    drop(first);
    assert!(StateDir::open(Some(folder.path()), 3).unwrap().renewed());
    let mut left = [users.as_slice(), &[mark::NAME]].concat();
    left.sort_unstable();
    assert_eq!(names(folder.path()), left);
    assert!(!StateDir::open(Some(folder.path()), 3).unwrap().renewed());
}

#[test]
fn what_a_run_with_more_leaders_wrote_goes_as_well() {
    let folder = tempfile::tempdir().unwrap();
    drop(run(folder.path(), 5));
    assert!(StateDir::open(Some(folder.path()), 1).unwrap().renewed());
    assert_eq!(names(folder.path()), [mark::NAME]);
}

#[test]
fn what_a_run_did_not_come_to_write_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let first = StateDir::open(Some(folder.path()), 3).unwrap();
    first.claim("hosts").unwrap();
    drop(first);
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, "precious").unwrap();
    let refused = refused(folder.path());
    assert!(refused.contains("has a kubeconfig that is not known"), "{refused}");
    assert_eq!(fs::read_to_string(&kubeconfig).unwrap(), "precious");
}

#[test]
fn a_list_names_nothing_beyond_what_sandboxes_write() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("state");
    drop(run(&folder, 1));
    for path in [folder.join("pods.yaml"), outer.path().join("precious"), folder.join("leader-9")] {
        fs::write(path, "").unwrap();
    }
    let list = folder.join(mark::NAME);
    let text = fs::read_to_string(&list).unwrap();
    let more = format!("../precious\npods.yaml\n.\n\n{}\nleader-9\n", outer.path().display());
    fs::write(&list, text + &more).unwrap();
    assert!(StateDir::open(Some(&folder), 1).unwrap().renewed());
    assert_eq!(names(&folder), ["leader-9", "pods.yaml", mark::NAME]);
    assert!(outer.path().join("precious").exists());
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = StateDir::open(Some(folder.path()), 3).unwrap();
    first.write_kubeconfig("mine").unwrap();
    let refused = refused(folder.path());
    assert!(refused.starts_with("another sandbox runs in the state folder"), "{refused}");
    assert_eq!(fs::read_to_string(first.kubeconfig()).unwrap(), "mine");
}

#[test]
fn what_no_sandbox_wrote_is_named_and_stays() {
    for name in ["kubeconfig", "leader-3"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, "precious").unwrap();
        for _ in 0..2 {
            let refused = refused(folder.path());
            assert!(refused.contains(&format!("has a {name} that is not known")), "{refused}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        assert_eq!(names(folder.path()), [name]);
    }
}

#[test]
fn a_lock_file_of_another_program_makes_no_folder_a_sandboxs() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["4711\n", "kubeconfig\n", "\u{fffd}"] {
        fs::write(folder.path().join(mark::NAME), text).unwrap();
        fs::write(folder.path().join("kubeconfig"), "precious").unwrap();
        let refused = refused(folder.path());
        assert!(refused.contains("has a sandbox.lock that is not known"), "{refused}");
        assert_eq!(fs::read_to_string(folder.path().join(mark::NAME)).unwrap(), text);
    }
    // An empty one lists nothing.
    fs::write(folder.path().join(mark::NAME), "").unwrap();
    assert!(refused(folder.path()).contains("has a kubeconfig that is not known"));
    assert_eq!(fs::read_to_string(folder.path().join("kubeconfig")).unwrap(), "precious");
}

#[test]
fn what_appears_while_a_run_goes_on_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(Some(folder.path()), 3).unwrap();
    fs::write(folder.path().join("kubeconfig"), "precious").unwrap();
    let refused = state.write_kubeconfig("").unwrap_err().to_string();
    assert!(refused.contains("has a kubeconfig that is not known"), "{refused}");
    assert_eq!(fs::read_to_string(state.kubeconfig()).unwrap(), "precious");
}
