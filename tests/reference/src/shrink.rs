//! Makes a failing world small enough to read: parts are taken away while it still fails.

use crate::names::Answers;
use crate::object::{Config, Mode, Node, Peer, Policy, World};

/// The smallest world that can be reached from `world` by taking parts away while `fails` stays true.
pub fn shrink(world: &World, fails: impl Fn(&World) -> bool) -> World {
    let mut smallest = world.clone();
    loop {
        let smaller = reductions(&smallest).find(&fails);
        match smaller {
            Some(smaller) => smallest = smaller,
            None => return smallest,
        }
    }
}

/// Worlds with one part less, large parts first.
fn reductions(world: &World) -> impl Iterator<Item = World> + '_ {
    let without_policy = (0..world.policies.len()).map(|at| {
        let mut smaller = world.clone();
        smaller.policies.remove(at);
        smaller
    });
    let simpler_policy = world.policies.iter().enumerate().flat_map(move |(at, policy)| {
        simpler_policies(policy).into_iter().map(move |policy| {
            let mut smaller = world.clone();
            smaller.policies[at] = policy;
            smaller
        })
    });
    let simpler_rest = simpler_surroundings(world).into_iter();
    without_policy.chain(simpler_rest).chain(simpler_policy).filter(move |smaller| smaller != world)
}

fn simpler_surroundings(world: &World) -> Vec<World> {
    let config = &world.config;
    let mut configs = vec![
        Config::default(),
        Config { excluded: Vec::new(), ..config.clone() },
        Config { resolvers: None, ..config.clone() },
    ];
    if config.internal.is_some() {
        let internal = Some(Vec::new());
        configs.push(Config { internal, ..config.clone() });
    }
    let mut simpler: Vec<World> = configs.into_iter().map(|config| World { config, ..world.clone() }).collect();
    simpler.push(World { node: Node::default(), ..world.clone() });
    simpler.push(World { answers: Answers::new(), ..world.clone() });
    for (name, live) in &world.answers {
        let mut smaller = world.clone();
        smaller.answers.remove(name);
        simpler.push(smaller);
        simpler.extend(live.iter().map(|address| {
            let mut smaller = world.clone();
            smaller.answers.get_mut(name).expect("a name of the world").remove(address);
            smaller
        }));
    }
    simpler.extend((0..world.pods.len()).map(|at| {
        let mut smaller = world.clone();
        smaller.pods.remove(at);
        smaller
    }));
    simpler
}

fn simpler_policies(policy: &Policy) -> Vec<Policy> {
    let mut simpler = vec![
        Policy { pod_selector: None, ..policy.clone() },
        Policy { namespace_selector: None, ..policy.clone() },
        Policy { service_accounts: None, ..policy.clone() },
        Policy { priority: 100, ..policy.clone() },
        Policy { mode: Mode::Enforce, ..policy.clone() },
    ];
    for at in 0..policy.rules.len() {
        let mut edit = |change: &dyn Fn(&mut Policy)| {
            let mut smaller = policy.clone();
            change(&mut smaller);
            simpler.push(smaller);
        };
        if policy.rules.len() > 1 {
            edit(&|policy| drop(policy.rules.remove(at)));
        }
        edit(&|policy| policy.rules[at].ports = None);
        edit(&|policy| policy.rules[at].name = None);
        edit(&|policy| {
            if let Peer::Cidr { except, .. } = &mut policy.rules[at].peer {
                except.pop();
            }
        });
        edit(&|policy| {
            if let Some(ports) = &mut policy.rules[at].ports
                && ports.len() > 1
            {
                ports.pop();
            }
        });
        edit(&|policy| {
            if let Some(ports) = &mut policy.rules[at].ports
                && ports.len() > 1
            {
                ports.remove(0);
            }
        });
    }
    simpler
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Action;

    #[test]
    fn a_failing_world_shrinks_to_the_part_that_fails() {
        let has_pass = |world: &World| {
            world.policies.iter().flat_map(|policy| &policy.rules).any(|rule| rule.action == Action::Pass)
        };
        let world = (0..1000).map(World::generate).find(has_pass).unwrap();
        let small = shrink(&world, has_pass);
        assert_eq!(small.policies.len(), 1);
        assert_eq!(small.policies[0].rules.len(), 1);
        assert_eq!(small.policies[0].rules[0].ports, None);
    }
}
