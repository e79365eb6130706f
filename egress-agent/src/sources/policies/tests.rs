//! What is in force after files are written, broken, moved and removed.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

struct Lab {
    folder: TempDir,
    state: TempDir,
    source: PolicySource,
}

impl Lab {
    fn new() -> Self {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let source = PolicySource::new(folder.path(), None, state.path());
        Self { folder, state, source }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    fn restart(&mut self) {
        self.source = PolicySource::new(self.folder.path(), None, self.state.path());
    }

    /// `default/a=10.0.0.0/8` for each policy: its name and the destination of its first rule.
    fn in_force(&mut self) -> (Vec<String>, Vec<Problem>) {
        let policies = self.source.read();
        let first = |policy: &egress_policy::model::Policy| match &policy.rules[0].peer {
            egress_policy::model::Peer::Cidr { cidr, .. } => cidr.to_string(),
            other @ (egress_policy::model::Peer::DnsName(_) | egress_policy::model::Peer::Nodes(_)) => {
                format!("{other:?}")
            }
        };
        let texts = policies.set.policies.values().map(|policy| format!("{}={}", policy.key, first(policy)));
        (texts.collect(), policies.problems)
    }
}

fn policy(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\nspec: {{egress: [{{type: Allow, to: {{cidrSelector: {cidr}}}}}]}}\n---\n"
    )
}

#[test]
fn policies_of_several_files_and_documents_are_in_force_and_a_deleted_file_removes_its_own() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &(policy("a", "10.0.0.0/8") + &policy("b", "2001:db8::/32")));
    lab.write("c.yaml", &policy("c", "1.2.3.0/24"));
    let (texts, problems) = lab.in_force();
    assert_eq!(texts, ["default/a=10.0.0.0/8", "default/b=2001:db8::/32", "default/c=1.2.3.0/24"]);
    assert_eq!(problems, []);
    lab.remove("a.yaml");
    assert_eq!(lab.in_force().0, ["default/c=1.2.3.0/24"]);
}

#[test]
fn a_broken_document_keeps_its_last_version_and_leaves_the_others_of_its_file_alone() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &(policy("a", "10.0.0.0/8") + &policy("b", "10.2.0.0/16") + &policy("gone", "10.3.0.0/16")));
    lab.in_force();
    lab.write("a.yaml", &(policy("a", "nonsense") + &policy("b", "10.9.0.0/16")));
    let (texts, problems) = lab.in_force();
    assert_eq!(texts, ["default/a=10.0.0.0/8", "default/b=10.9.0.0/16"]);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].source, "a.yaml");
    assert_eq!(problems[0].object.as_deref(), Some("EgressNetworkPolicy default/a"));
    assert_eq!(problems[0].path.as_deref(), Some("spec.egress[0].to.cidrSelector"));
}

#[test]
fn a_file_that_is_not_yaml_or_empty_keeps_all_it_held() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &(policy("a", "10.0.0.0/8") + &policy("b", "10.2.0.0/16")));
    lab.in_force();
    for text in ["spec: [", "", "\n\n"] {
        lab.write("a.yaml", text);
        let (texts, problems) = lab.in_force();
        assert_eq!(texts, ["default/a=10.0.0.0/8", "default/b=10.2.0.0/16"], "{text:?}");
        assert_eq!(problems.len(), 1);
    }
    lab.remove("a.yaml");
    assert_eq!(lab.in_force().0, Vec::<String>::new());
}

#[test]
fn a_misspelled_kind_does_not_remove_the_policy_that_it_was() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &policy("a", "10.0.0.0/8"));
    lab.in_force();
    lab.write("a.yaml", &policy("a", "10.9.0.0/16").replace("kind: Egress", "kind: Egres"));
    let (texts, problems) = lab.in_force();
    assert_eq!(texts, ["default/a=10.0.0.0/8"]);
    assert!(!problems.is_empty());
}

#[test]
fn last_good_versions_survive_a_restart_and_are_gone_with_their_file() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &policy("a", "10.0.0.0/8"));
    lab.write("b.yaml", &policy("b", "10.2.0.0/16"));
    lab.in_force();
    lab.source.save().unwrap();
    lab.write("a.yaml", &policy("a", "nonsense"));
    lab.remove("b.yaml");
    lab.restart();
    let (texts, problems) = lab.in_force();
    assert_eq!(texts, ["default/a=10.0.0.0/8"]);
    assert_eq!(problems.len(), 1);
    lab.source.save().unwrap();
    lab.remove("a.yaml");
    lab.restart();
    assert_eq!(lab.in_force(), (Vec::new(), Vec::new()));
    lab.source.save().unwrap();
    assert_eq!(fs::read_dir(lab.state.path().join("last-good/policies")).unwrap().count(), 0);
}

#[test]
fn a_stored_version_that_is_damaged_is_a_problem_and_no_crash() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &policy("a", "10.0.0.0/8"));
    lab.in_force();
    lab.source.save().unwrap();
    for entry in fs::read_dir(lab.state.path().join("last-good/policies")).unwrap() {
        fs::write(entry.unwrap().path(), "{").unwrap();
    }
    lab.restart();
    let (texts, problems) = lab.in_force();
    assert_eq!(texts, ["default/a=10.0.0.0/8"]);
    assert_eq!(problems.len(), 1);
}

#[test]
fn of_two_objects_with_one_name_the_first_file_counts_and_the_other_is_a_problem() {
    let mut lab = Lab::new();
    lab.write("b.yaml", &policy("a", "10.2.0.0/16"));
    lab.write("a.yaml", &policy("a", "10.0.0.0/8"));
    let (texts, problems) = lab.in_force();
    assert_eq!(texts, ["default/a=10.0.0.0/8"]);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].source, "b.yaml");
    assert!(problems[0].message.contains("a.yaml"), "{}", problems[0]);
    lab.remove("a.yaml");
    assert_eq!(lab.in_force(), (vec!["default/a=10.2.0.0/16".to_owned()], Vec::new()));
}

#[test]
fn a_config_map_swap_is_one_step() {
    let mut lab = Lab::new();
    let mount = lab.folder.path().to_path_buf();
    for (version, cidr) in [("..1", "10.1.0.0/16"), ("..2", "10.2.0.0/16")] {
        fs::create_dir(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("a.yaml"), policy("a", cidr)).unwrap();
        fs::write(mount.join(version).join("b.yaml"), policy("b", cidr)).unwrap();
    }
    symlink("..1", mount.join("..data")).unwrap();
    for name in ["a.yaml", "b.yaml"] {
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
    }
    assert_eq!(lab.in_force().0, ["default/a=10.1.0.0/16", "default/b=10.1.0.0/16"]);
    symlink("..2", mount.join("..data_tmp")).unwrap();
    fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    assert_eq!(lab.in_force().0, ["default/a=10.2.0.0/16", "default/b=10.2.0.0/16"]);
}

#[test]
fn a_folder_that_is_gone_changes_nothing_and_an_empty_one_removes_all() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &policy("a", "10.0.0.0/8"));
    lab.in_force();
    fs::remove_dir_all(lab.folder.path()).unwrap();
    let (texts, problems) = lab.in_force();
    assert_eq!(texts, ["default/a=10.0.0.0/8"]);
    assert_eq!(problems.len(), 1);
    fs::create_dir(lab.folder.path()).unwrap();
    assert_eq!(lab.in_force(), (Vec::new(), Vec::new()));
}

#[test]
fn the_config_file_wins_over_a_configuration_in_the_folder() {
    let mut lab = Lab::new();
    let config = |action: &str| {
        format!(
            "apiVersion: egress.rs/v1alpha1\nkind: EgressConfig\nmetadata: {{name: default}}\nspec: {{defaultAction: {action}, internalCIDRs: []}}\n"
        )
    };
    let file = lab.state.path().join("config.yaml");
    fs::write(&file, config("Deny")).unwrap();
    lab.write("a.yaml", &config("Allow"));
    lab.source = PolicySource::new(lab.folder.path(), Some(&file), lab.state.path());
    let read = lab.source.read();
    assert_eq!(read.problems.len(), 1, "{:?}", read.problems);
    assert_eq!(read.set.config.default_action, egress_policy::model::DefaultAction::Deny);
    assert_eq!(read.problems.len(), 1);
    // A config file that disappears must not open everything.
    fs::remove_file(&file).unwrap();
    let read = lab.source.read();
    assert_eq!(read.set.config.default_action, egress_policy::model::DefaultAction::Deny);
}

#[test]
fn a_broken_object_without_a_last_version_does_not_keep_another_file_out() {
    let mut lab = Lab::new();
    lab.write("a.yaml", &policy("a", "nonsense"));
    lab.write("b.yaml", &policy("a", "10.2.0.0/16"));
    let (texts, problems) = lab.in_force();
    assert_eq!(texts, ["default/a=10.2.0.0/16"]);
    assert_eq!(problems.len(), 1);
}
