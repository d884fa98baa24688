use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn cpu(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: Hierarchy::V1Cpu, id }
}

fn unified(id: u64) -> CgroupKey {
    CgroupKey { hierarchy: Hierarchy::Unified, id }
}

fn present(cgroup: CgroupKey, path: &str) -> CgroupChange {
    CgroupChange::Present { cgroup, path: path.into() }
}

fn gone(cgroup: CgroupKey) -> CgroupChange {
    CgroupChange::Gone { cgroup }
}

fn path_of(tree: &Tree, cgroup: CgroupKey) -> Option<&str> {
    tree.key(cgroup).map(|key| &*tree.node(tree.node_of(key)).path)
}

fn anchor_of(tree: &Tree, path: &str) -> String {
    let node = tree.node(tree.at(path).expect("a node"));
    tree.node(node.anchor).path.to_string()
}

#[test]
fn ids_of_one_path_join_and_ids_of_two_trees_do_not_mix() {
    let mut tree = Tree::default();
    tree.apply(&present(cpu(7), "/a/b"), 0);
    tree.apply(&present(unified(9), "/a/b"), 0);
    tree.apply(&present(unified(7), "/c"), 0);
    assert_eq!((path_of(&tree, cpu(7)), path_of(&tree, unified(7))), (Some("/a/b"), Some("/c")));
    let node = |cgroup| tree.node_of(tree.key(cgroup).expect("known"));
    assert_eq!(node(cpu(7)), node(unified(9)));
    tree.apply(&gone(cpu(7)), 0);
    let id = tree.at("/a/b").expect("a node");
    assert!(tree.node(id).is_live(), "the other tree still has it");
    tree.apply(&gone(unified(9)), 0);
    assert!(tree.node(id).is_dead());
}

#[test]
fn descendants_go_to_the_nearest_anchor_whatever_the_order() {
    let id = "a".repeat(64);
    let container = format!("/kubepods/pod11111111-2222-3333-4444-555555555555/{id}");
    let below = format!("{container}/system.slice/nginx.service");
    let mut tree = Tree::default();
    tree.apply(&present(cpu(1), &below), 0);
    assert_eq!(anchor_of(&tree, &below), container);
    let anchor = tree.at(&container).expect("heard of");
    assert!(tree.node(anchor).is_live(), "a part of it lives");
    assert!(!tree.node(tree.at("/kubepods").expect("heard of")).is_live());
    tree.apply(&present(cpu(2), &container), 0);
    assert_eq!(tree.at(&container), Some(anchor));
    tree.apply(&gone(cpu(2)), 0);
    assert!(tree.node(anchor).is_live(), "a part of it lives still");
    tree.apply(&gone(cpu(1)), 0);
    assert!(tree.node(anchor).is_dead());
    // What comes later at the same place, even below what was never reported, is another's.
    tree.apply(&present(cpu(3), &format!("{container}/system.slice/other.service")), 0);
    assert!(!tree.node(tree.at(&container).expect("heard of")).is_dead());
    assert!(tree.node(anchor).is_dead());
    assert_eq!(anchor_of(&tree, &format!("{container}/system.slice")), container);
    assert_eq!(anchor_of(&tree, "/kubepods"), "/kubepods");
    assert_eq!(anchor_of(&tree, "/"), "/");
}

#[test]
fn the_dead_are_resolvable_for_a_while_and_leave_nothing_behind() {
    let mut tree = Tree::default();
    tree.apply(&present(cpu(1), "/x.service/sub"), 0);
    tree.apply(&gone(cpu(1)), 0);
    tree.forget(299 * SECOND);
    assert_eq!(path_of(&tree, cpu(1)), Some("/x.service/sub"));
    tree.forget(301 * SECOND);
    assert_eq!((path_of(&tree, cpu(1)), tree.at("/x.service/sub")), (None, None));
    assert_eq!((tree.nodes.len(), tree.by_path.len(), tree.keys.len(), tree.ids.len()), (0, 0, 0, 0));
    assert_eq!((tree.removed_nodes.len(), tree.removed_keys.len()), (3, 1));
}

#[test]
fn a_path_made_again_is_another_node() {
    let mut tree = Tree::default();
    tree.apply(&present(cpu(1), "/x.service"), 0);
    let first = tree.at("/x.service");
    tree.apply(&gone(cpu(1)), 0);
    tree.apply(&present(cpu(2), "/x.service"), SECOND);
    let second = tree.at("/x.service");
    assert_ne!(first, second);
    assert_eq!(tree.key(cpu(1)).map(|k| tree.node_of(k)), first);
    tree.forget(400 * SECOND);
    assert_eq!(tree.at("/x.service"), second, "forgetting the first leaves the second");
    // The removal was not told: the new id at the place tells it.
    tree.apply(&present(cpu(3), "/x.service"), 401 * SECOND);
    assert!(tree.node(second.expect("a node")).is_dead());
    assert!(tree.node(tree.at("/x.service").expect("a node")).is_live());
}

#[test]
fn what_was_taken_for_dead_and_is_told_of_again_lives() {
    let mut tree = Tree::default();
    tree.apply(&gone(cpu(1)), 0);
    tree.apply(&present(cpu(1), "/a"), 0);
    tree.apply(&present(cpu(1), "/a"), 0);
    let first = tree.key(cpu(1));
    tree.apply(&gone(cpu(1)), 0);
    tree.apply(&gone(cpu(1)), 0);
    assert!(tree.node(tree.at("/a").expect("remembered")).is_dead());
    assert_eq!(tree.dead.len(), 1);
    tree.apply(&present(cpu(1), "/a"), SECOND);
    assert!(tree.node(tree.at("/a").expect("a node")).is_live());
    assert_ne!(tree.key(cpu(1)), first, "its numbers start over");
    tree.forget(400 * SECOND);
    assert_eq!(path_of(&tree, cpu(1)), Some("/a"), "forgetting what was before leaves it");
    tree.apply(&gone(cpu(1)), 400 * SECOND);
    assert!(tree.node(tree.at("/a").expect("remembered")).is_dead());
    tree.forget(800 * SECOND);
    assert_eq!((tree.nodes.len(), tree.keys.len(), tree.ids.len()), (0, 0, 0));
}

/// `mv` of a v1 cgroup: the same id, another path.
#[test]
fn a_renamed_cgroup_goes_on_under_its_new_name() {
    let mut tree = Tree::default();
    tree.apply(&present(cpu(1), "/r1"), 0);
    tree.apply(&present(cpu(2), "/r1/below"), 0);
    let (key, old) = (tree.key(cpu(1)), tree.at("/r1").expect("a node"));
    tree.apply(&present(cpu(1), "/r2"), SECOND);
    tree.apply(&present(cpu(2), "/r2/below"), SECOND);
    assert_eq!((path_of(&tree, cpu(1)), path_of(&tree, cpu(2))), (Some("/r2"), Some("/r2/below")));
    assert_eq!(tree.key(cpu(1)), key, "its numbers go on");
    assert!(tree.node(old).is_dead(), "what was said of the old name ends");
    tree.forget(SECOND);
    assert_eq!(tree.at("/r1"), None);
    assert!(tree.dead.is_empty());
}

/// Another is made at the old place, and it depends on the order of directories which of the two is reported first.
#[test]
fn of_a_renamed_cgroup_and_one_in_its_old_place_each_has_its_own_name() {
    for renamed_first in [true, false] {
        let mut tree = Tree::default();
        tree.apply(&present(cpu(1), "/r1"), 0);
        let key = tree.key(cpu(1));
        let mut changes = [present(cpu(1), "/r2"), present(cpu(2), "/r1")];
        if !renamed_first {
            changes.reverse();
        }
        changes.iter().for_each(|change| tree.apply(change, SECOND));
        assert_eq!((path_of(&tree, cpu(1)), path_of(&tree, cpu(2))), (Some("/r2"), Some("/r1")));
        assert_eq!(tree.key(cpu(1)), key);
        for path in ["/r1", "/r2"] {
            assert!(tree.node(tree.at(path).expect("a node")).is_live(), "{path}");
        }
        tree.forget(400 * SECOND);
        assert_eq!((tree.keys.len(), tree.nodes.len()), (2, 3), "these and the root");
    }
}

#[test]
fn bounded_in_nodes_and_in_the_dead() {
    let memory = Memory { dead_max: 10, nodes_max: 100, ..Memory::default() };
    let mut tree = Tree::new(memory);
    for id in 0..200 {
        tree.apply(&present(cpu(id), &format!("/{id}")), 0);
    }
    assert_eq!((tree.nodes.len(), tree.dropped), (100, 101), "the root is a node too");
    for id in 0..200 {
        tree.apply(&gone(cpu(id)), 0);
    }
    tree.forget(9 * SECOND);
    assert_eq!(tree.dead.len(), 99, "what just died is kept");
    tree.forget(11 * SECOND);
    assert_eq!(tree.dead.len(), 10);
    assert_eq!(path_of(&tree, cpu(98)), Some("/98"), "the youngest stay");
}

fn change() -> impl Strategy<Value = CgroupChange> {
    let cgroup = (0..2u8, 0..40u64)
        .prop_map(|(h, id)| CgroupKey { hierarchy: [Hierarchy::Unified, Hierarchy::V1Cpu][h as usize], id });
    let path = prop::sample::select(vec![
        "/",
        "/a",
        "/a/b",
        "/a/b/c",
        "/d.service",
        "/d.service/e",
        "/d.service/e/f",
        "",
        "g",
    ]);
    (cgroup, prop::option::of(path)).prop_map(|(cgroup, path)| match path {
        Some(path) => present(cgroup, path),
        None => gone(cgroup),
    })
}

proptest! {
    /// Whatever is told in whatever order: the counts agree with each other, living ids resolve to the
    /// path they were told with, and when all is dead and forgotten nothing is left.
    #[test]
    fn any_sequence_of_changes_keeps_the_books(changes in prop::collection::vec((change(), 0..20u64), 0..200)) {
        let mut tree = Tree::default();
        let mut now = 0;
        for (change, step) in changes {
            now += step * SECOND;
            tree.apply(&change, now);
            if let CgroupChange::Present { cgroup, path } = &change {
                let wanted = if path.is_empty() { "/" } else { path };
                prop_assert_eq!(path_of(&tree, *cgroup), Some(wanted));
            }
            tree.forget(now);
            for (id, node) in tree.nodes() {
                let live = tree.keys.iter().filter(|(_, k)| k.node == id && k.alive).count();
                let children = tree.nodes().filter(|(_, n)| n.parent == Some(id)).count();
                prop_assert_eq!((node.live as usize, node.children as usize), (live, children));
                prop_assert_eq!(node.keys.iter().flatten().count(), live);
                let members = tree.keys.iter().filter(|(_, k)| tree.nodes[k.node].anchor == id && k.alive).count();
                prop_assert_eq!(node.members as usize, members);
                prop_assert!(!(node.is_live() && node.is_dead()));
            }
        }
        let cgroups: Vec<_> = tree.ids.keys().copied().collect();
        for cgroup in cgroups {
            tree.apply(&gone(cgroup), now);
        }
        tree.forget(now + 301 * SECOND);
        prop_assert_eq!((tree.nodes.len(), tree.by_path.len(), tree.keys.len(), tree.dead.len()), (0, 0, 0, 0));
    }
}
