//! Policies as a user would write them, from one line per rule.

/// The settings of most tests: what is internal is known, everything else is default.
pub const CONFIG: &str = "\
apiVersion: egress.rs/v1alpha1
kind: EgressConfig
metadata: {name: default}
spec:
  internalCIDRs: [10.244.0.0/16, 'fd00:10:244::/48']
";

/// The office network is allowed, the rest denied, in both families.
pub const OFFICE: [&str; 4] = ["Allow 1.2.3.0/24", "Allow 2001:db8:1::/48", "Deny 0.0.0.0/0", "Deny ::/0"];

/// [`CONFIG`] with more lines of `spec`, as YAML (`defaultAction: Deny`).
pub fn config(lines: &[&str]) -> String {
    let more: String = lines.iter().flat_map(|line| ["  ", line, "\n"]).collect();
    format!("{CONFIG}{more}")
}

/// [`CONFIG`] and a policy `default/office` of these rules: `Allow|Deny|Pass CIDR|NAME [PROTOCOL[/port[-end]]]...`. A rule is
/// named by its text.
pub fn policy(rules: &[&str]) -> String {
    format!("{CONFIG}{}", document("office", &[], rules))
}

/// An `EgressNetworkPolicy` of namespace `default` as a further document, with more lines of `spec` (`mode: Audit`).
pub fn document(name: &str, lines: &[&str], rules: &[&str]) -> String {
    let more: String = lines.iter().flat_map(|line| ["  ", line, "\n"]).collect();
    format!(
        "---\napiVersion: egress.rs/v1alpha1\nkind: EgressNetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n{more}  egress:\n{}",
        rules_yaml(rules)
    )
}

/// A `ClusterEgressPolicy` as a further document.
pub fn cluster(name: &str, tier: &str, rules: &[&str]) -> String {
    format!(
        "---\napiVersion: egress.rs/v1alpha1\nkind: ClusterEgressPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  tier: {tier}\n  egress:\n{}",
        rules_yaml(rules)
    )
}

fn rules_yaml(rules: &[&str]) -> String {
    rules.iter().map(|rule| rule_yaml(rule)).collect()
}

fn rule_yaml(text: &str) -> String {
    let mut words = text.split(' ');
    let (action, peer) = (words.next().expect("an action"), words.next().expect("a CIDR or a name"));
    let selector = if peer.contains('/') { "cidrSelector" } else { "dnsName" };
    let ports: Vec<String> = words.map(port_yaml).collect();
    let ports = if ports.is_empty() { String::new() } else { format!(", ports: [{}]", ports.join(", ")) };
    format!("  - {{name: '{text}', type: {action}, to: {{{selector}: '{peer}'}}{ports}}}\n")
}

fn port_yaml(text: &str) -> String {
    let (protocol, ports) = text.split_once('/').unwrap_or((text, ""));
    match ports.split_once('-') {
        Some((from, to)) => format!("{{protocol: {protocol}, port: {from}, endPort: {to}}}"),
        None if ports.is_empty() => format!("{{protocol: {protocol}}}"),
        None => format!("{{protocol: {protocol}, port: {ports}}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_becomes_yaml() {
        assert_eq!(
            rule_yaml("Allow 1.2.3.0/24 TCP/443 UDP/8000-9000 ICMP"),
            "  - {name: 'Allow 1.2.3.0/24 TCP/443 UDP/8000-9000 ICMP', type: Allow, to: {cidrSelector: '1.2.3.0/24'}, \
             ports: [{protocol: TCP, port: 443}, {protocol: UDP, port: 8000, endPort: 9000}, {protocol: ICMP}]}\n"
        );
        assert_eq!(
            rule_yaml("Deny **.foo.com"),
            "  - {name: 'Deny **.foo.com', type: Deny, to: {dnsName: '**.foo.com'}}\n"
        );
    }
}
