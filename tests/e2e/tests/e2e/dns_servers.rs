//! Other name servers and another C library: BIND by itself, unbound as a cache in front of it, and musl's resolver (§5.2, §5.5).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::Command;

use egress_e2e::{
    Lab, at, insist_reached_by_name, insist_refused_by_name, look_up_and_connect, names_policy, names_world, reaches,
};
use egress_world::probe::Outcome;
use egress_world::resolver::{self, Dnsmasq, Resolver, ZoneServer};

/// Addresses of a name with many of them.
const MANY: usize = 60;

/// Single names, a name of two addresses in changing order, a chain of aliases, and more addresses than fit a datagram.
fn zone() -> String {
    let mut zone = String::new();
    let mut pair = |name: &str, number: usize| {
        let (high, low) = (number / 250, number % 250 + 1);
        let _ = writeln!(zone, "{name} A 10.1.{high}.{low}\n{name} AAAA 2001:db8:77:{high:x}::{low:x}");
    };
    for number in 0..10 {
        pair(&format!("n{number}.apps"), number);
    }
    for number in 20..28 {
        pair("robin.apps", number);
    }
    for number in 100..100 + MANY {
        pair("many.apps", number);
    }
    pair("edge.cdn", 40);
    pair("n0.others", 50);
    zone + "alias.apps CNAME between.cdn\nbetween.cdn CNAME edge.cdn\n"
}

fn teaches(start: impl FnOnce(&Resolver, &str) -> Option<ZoneServer>, what: &str) {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let Some(_server) = start(&resolver, &zone()) else {
        eprintln!("SKIPPED: this machine has no {what}");
        return;
    };
    let lab = Lab::new(&world, &names_policy("", &["Allow *.apps.test", "Deny 0.0.0.0/0", "Deny ::/0"]));
    let pod = lab.world.pod("client");
    for number in 0..10 {
        insist_reached_by_name(pod, &resolver, &format!("n{number}.apps.test"));
    }
    for name in ["robin.apps.test", "robin.apps.test", "RoBin.Apps.Test", "alias.apps.test"] {
        insist_reached_by_name(pod, &resolver, name);
    }
    // Truncated by UDP, whole by TCP: in both families, which the C library asks for in one segment.
    let many = look_up_and_connect(pod, &resolver, "many.apps.test");
    assert_eq!(many.len(), 2 * MANY);
    assert!(many.iter().all(|(_, outcome)| *outcome == Outcome::Answered), "{many:?}");
    insist_refused_by_name(pod, &resolver, "n0.others.test");
    assert!(look_up_and_connect(pod, &resolver, "missing.apps.test").is_empty());
    for remote in ["10.1.0.200", "2001:db8:77:0::c8"] {
        assert!(!reaches(pod, at(remote, 443)), "{remote}");
    }
}

#[test]
fn bind_teaches() {
    teaches(ZoneServer::bind, "BIND (named)");
}

#[test]
fn unbound_in_front_of_bind_teaches() {
    teaches(ZoneServer::unbound, "unbound or BIND (named)");
}

/// Looks the name up and connects to each address at once, as a program of musl does: it asks every server at the same time, over UDP
/// only. Prints the address and the error number.
const MUSL: &str = r#"
#include <errno.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *at;
        if (getaddrinfo(names[i], "443", &hints, &found)) return 1;
        for (at = found; at; at = at->ai_next) {
            int socket_ = socket(at->ai_family, SOCK_STREAM, 0);
            int error = connect(socket_, at->ai_addr, at->ai_addrlen) ? errno : 0;
            char text[64];
            getnameinfo(at->ai_addr, at->ai_addrlen, text, sizeof text, 0, 0, NI_NUMERICHOST);
            printf("%s %d\n", text, error);
            close(socket_);
        }
    }
    return 0;
}
"#;

#[test]
fn musls_resolver_teaches() {
    let Some((world, resolver)) = names_world(&["default/client"]) else {
        return;
    };
    let (source, program) = (world.files().join("musl.c"), world.files().join("musl"));
    std::fs::write(&source, MUSL).expect("a file of the world");
    let Ok(built) = Command::new("musl-gcc").arg("-static").arg("-o").arg(&program).arg(&source).status() else {
        eprintln!("SKIPPED: this machine has no musl-gcc");
        return;
    };
    assert!(built.success(), "musl-gcc");
    let hosts = |zone: &str, first: usize| -> String {
        let line = |number: usize| {
            let low = first + number;
            format!("10.1.0.{low} n{number}.{zone}\n2001:db8:77::{low:x} n{number}.{zone}\n")
        };
        (0..20).map(line).collect()
    };
    let _server = Dnsmasq::start(&resolver, &(hosts("apps.test", 1) + &hosts("others.test", 100)), 60, &[]);
    let lab = Lab::new(&world, &names_policy("", &["Allow *.apps.test", "Deny 0.0.0.0/0", "Deny ::/0"]));
    let conf = resolver.conf();
    let run = |zone: &str| -> Vec<(IpAddr, i32)> {
        let names: Vec<String> = (0..20).map(|number| format!("n{number}.{zone}")).collect();
        let text: String = lab.world.pod("client").run(|| {
            resolver::use_resolvers(&conf);
            let output = Command::new(&program).args(&names).output().expect("the program runs");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        });
        let line = |line: &str| {
            let (address, error) = line.split_once(' ').expect("two words");
            (address.parse().expect("an address"), error.parse().expect("a number"))
        };
        text.lines().map(line).collect()
    };
    let (allowed, refused) = (run("apps.test"), run("others.test"));
    for got in [&allowed, &refused] {
        assert_eq!(got.len(), 40, "{got:?}");
        assert!(
            [IpAddr::is_ipv4, IpAddr::is_ipv6]
                .iter()
                .all(|is| got.iter().filter(|(address, _)| is(address)).count() == 20)
        );
    }
    assert!(allowed.iter().all(|(_, error)| *error == 0), "{allowed:?}");
    assert!(refused.iter().all(|(_, error)| *error == libc::EPERM), "{refused:?}");
}
