//! What keys do: order, filter, pause. Pure; [`arrange`](Controls::arrange) applies it to what would be shown.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rates::{RuleRow, View};

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// What is refused now, most first.
    #[default]
    Refused,
    /// What Audit would refuse now.
    Audit,
    /// What was counted in all.
    InAll,
    /// Names, ascending.
    Name,
}

impl Order {
    const fn next(self) -> Self {
        match self {
            Self::Refused => Self::Audit,
            Self::Audit => Self::InAll,
            Self::InAll => Self::Name,
            Self::Name => Self::Refused,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Audit => "audit",
            Self::InAll => "in all",
            Self::Name => "name",
        }
    }
}

/// What a key asks for beyond the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Begin to count anew.
    Forget,
}

/// How the person who watches wants to see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Controls {
    order: Order,
    filter: String,
    /// Keys are letters of the filter.
    typing: bool,
    paused: bool,
}

impl Controls {
    pub(super) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Takes a key.
    pub(super) fn key(&mut self, key: &KeyEvent) -> Wish {
        if key.kind != KeyEventKind::Press {
            return Wish::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Wish::Quit;
        }
        if control {
            return Wish::Nothing;
        }
        if self.typing {
            self.type_filter(key.code);
            return Wish::Nothing;
        }
        self.command(key.code)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing")]
    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.extend(letter.to_lowercase()),
            _ => {}
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "most keys mean nothing")]
    fn command(&mut self, key: KeyCode) -> Wish {
        match key {
            KeyCode::Char('q') => return Wish::Quit,
            // The way out of a filter first, then of the program.
            KeyCode::Esc if self.filter.is_empty() => return Wish::Quit,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('r') => return Wish::Forget,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('s') => self.order = self.order.next(),
            KeyCode::Char('/') => self.typing = true,
            _ => {}
        }
        Wish::Nothing
    }

    /// The last line: the filter while it is typed, else the keys.
    pub(super) fn line(&self) -> String {
        if self.typing {
            return format!("/{}_   enter keep   esc all", self.filter);
        }
        let pause = if self.paused { "go on" } else { "pause" };
        format!("q quit   p {pause}   s sort ({})   / filter   r begin anew", self.order.words())
    }

    /// What is to be seen of `view`.
    pub(super) fn arrange(&self, mut view: View) -> View {
        if self.paused {
            view.title.push_str(", paused");
        }
        if !self.filter.is_empty() {
            view.title.push_str(", only \"");
            view.title.push_str(&self.filter);
            view.title.push('"');
            let fits = |text: &str| text.to_lowercase().contains(&self.filter);
            view.pods.retain(|row| fits(&row.name));
            view.destinations.retain(|row| fits(&row.name));
            view.rules.retain(|row| fits(&row.words()));
        }
        if self.order != Order::Refused {
            for rows in [&mut view.pods, &mut view.destinations] {
                rows.sort_by(|a, b| match self.order {
                    Order::Refused => std::cmp::Ordering::Equal,
                    Order::Audit => b.figures.would.total_cmp(&a.figures.would),
                    Order::InAll => b.figures.total.cmp(&a.figures.total),
                    Order::Name => a.name.cmp(&b.name),
                });
            }
            view.rules.sort_by(|a, b| match self.order {
                Order::Refused => std::cmp::Ordering::Equal,
                Order::Audit => audit(b).total_cmp(&audit(a)),
                Order::InAll => b.total.cmp(&a.total),
                Order::Name => (&a.key.policy, &a.key.rule).cmp(&(&b.key.policy, &b.key.rule)),
            });
        }
        view
    }
}

fn audit(row: &RuleRow) -> f64 {
    if row.key.verdict == "audit-deny" { row.packets } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::rates::{Figures, Row};
    use super::*;
    use crate::vitals::RuleKey;

    fn press(controls: &mut Controls, keys: &str) -> Wish {
        let key = |letter| match letter {
            '\n' => KeyCode::Enter,
            '\u{1b}' => KeyCode::Esc,
            '\u{8}' => KeyCode::Backspace,
            letter => KeyCode::Char(letter),
        };
        keys.chars().map(|letter| controls.key(&KeyEvent::new(key(letter), KeyModifiers::NONE))).last().unwrap()
    }

    fn view() -> View {
        let row =
            |name: &str, refused, would, total| Row { name: name.into(), figures: Figures { refused, would, total } };
        let rule = |policy: &str, rule: &str, verdict: &str, total| RuleRow {
            key: RuleKey { policy: policy.into(), rule: rule.into(), verdict: verdict.into() },
            packets: 2.0,
            bytes: 0.0,
            total,
        };
        View {
            pods: vec![row("shop/web", 9.0, 0.0, 10), row("shop/api", 1.0, 7.0, 10), row("admin/x", 0.0, 1.0, 99)],
            rules: vec![
                rule("shop/z", "2", "deny", 1),
                rule("shop/a", "1", "audit-deny", 3),
                rule("", "default action", "allow", 9),
            ],
            ..View::default()
        }
    }

    fn seen(controls: &Controls) -> (Vec<String>, Vec<String>) {
        let view = controls.arrange(view());
        let pods = view.pods.into_iter().map(|row| row.name).collect();
        (pods, view.rules.into_iter().map(|row| row.key.policy).collect())
    }

    #[test]
    fn s_goes_through_the_orders_and_comes_back() {
        let mut controls = Controls::default();
        let expected = [
            ("audit", ["shop/api", "admin/x", "shop/web"], ["shop/a", "shop/z", ""]),
            ("in all", ["admin/x", "shop/web", "shop/api"], ["", "shop/a", "shop/z"]),
            ("name", ["admin/x", "shop/api", "shop/web"], ["", "shop/a", "shop/z"]),
            ("refused", ["shop/web", "shop/api", "admin/x"], ["shop/z", "shop/a", ""]),
        ];
        for (words, pods, rules) in expected {
            assert_eq!(press(&mut controls, "s"), Wish::Nothing);
            let (seen_pods, seen_rules) = seen(&controls);
            assert_eq!(
                (seen_pods.as_slice(), seen_rules.as_slice()),
                (&pods.map(String::from)[..], &rules.map(String::from)[..]),
                "{words}"
            );
            assert!(controls.line().contains(&format!("s sort ({words})")), "{}", controls.line());
        }
    }

    #[test]
    fn what_is_typed_after_a_slash_filters_and_escape_shows_all_again() {
        let mut controls = Controls::default();
        // Letters that are keys otherwise.
        press(&mut controls, "/SHOPqs\u{8}\u{8}");
        assert_eq!(controls.line(), "/shop_   enter keep   esc all");
        assert_eq!(
            seen(&controls),
            (vec!["shop/web".into(), "shop/api".into()], vec!["shop/z".into(), "shop/a".into()])
        );
        assert_eq!(press(&mut controls, "\n"), Wish::Nothing);
        assert!(controls.line().starts_with("q quit"));
        assert!(controls.arrange(view()).title.ends_with(", only \"shop\""));
        // A rule is found by what it does.
        press(&mut controls, "/\u{1b}/audit-d\n");
        assert_eq!(seen(&controls), (vec![], vec!["shop/a".into()]));
        assert_eq!(press(&mut controls, "\u{1b}"), Wish::Nothing, "the filter goes first");
        assert_eq!(seen(&controls).0.len(), 3);
        assert_eq!(press(&mut controls, "\u{1b}"), Wish::Quit);
    }

    #[test]
    fn q_and_control_c_quit_and_r_begins_anew() {
        let mut controls = Controls::default();
        assert_eq!(press(&mut controls, "q"), Wish::Quit);
        assert_eq!(press(&mut controls, "r"), Wish::Forget);
        let control = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        press(&mut controls, "/");
        assert_eq!(controls.key(&control('c')), Wish::Quit, "also while a filter is typed");
        assert_eq!(controls.key(&control('q')), Wish::Nothing);
        assert_eq!(press(&mut controls, "\u{1b}p"), Wish::Nothing);
        assert!(controls.is_paused() && controls.line().contains("p go on"));
        assert!(controls.arrange(view()).title.ends_with(", paused"));
    }
}
