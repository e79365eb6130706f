use super::*;

#[test]
fn the_openshift_example_is_read() {
    let documents = read(
        "apiVersion: network.openshift.io/v1
kind: EgressNetworkPolicy
metadata:
  name: default
  namespace: web
spec:
  egress:
  - type: Allow
    to:
      cidrSelector: 1.2.3.0/24
  - type: Allow
    to:
      dnsName: www.foo.com
  - type: Deny
    to:
      cidrSelector: 0.0.0.0/0
",
    );
    assert_eq!(documents.problems, []);
    assert_eq!(documents.objects.len(), 1);
}
