//! What came out: every round's numbers, their medians, and the ratios between them. Pure.

use serde_json::{Map, Value, json};

use super::quantity::Quantity;

/// Everything that one call measured, and on what.
#[derive(Clone, Debug)]
pub struct Report {
    /// When it began, as `2026-01-31 12:00 UTC`.
    pub date: String,
    /// What is known of the machine: a name and what was found.
    pub machine: Vec<(&'static str, String)>,
    pub rounds: u32,
    pub quick: bool,
    pub subjects: Vec<Subject>,
    /// Isolations that aren't measured, each with its reason.
    pub missing: Vec<(String, String)>,
    pub rows: Vec<Row>,
}

/// What the same program ran under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The name in JSON.
    pub id: String,
    /// The name for people.
    pub name: String,
    pub what: String,
    /// A command by which a person could start it.
    pub command: String,
    pub role: Role,
    /// What is beside it: the bare mechanism that this isolation stands on, by its id.
    pub bare: Option<String>,
}

/// Why something is in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// What all are compared with: the plain process.
    Reference,
    /// The bare mechanism.
    Bare,
    /// An isolation of Vimana's.
    Isolation,
}

/// One quantity, under each subject in the report's order.
#[derive(Clone, Debug)]
pub struct Row {
    pub quantity: &'static Quantity,
    pub cells: Vec<Cell>,
}

/// One quantity under one subject.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// What each round gave; at least one.
    Measured(Vec<f64>),
    /// Why there is nothing.
    Absent(String),
}

impl Cell {
    /// The median of its rounds.
    pub fn median(&self) -> Option<f64> {
        match self {
            Self::Measured(values) => median(values),
            Self::Absent(_) => None,
        }
    }
}

/// The value in the middle, or between the two in the middle; none of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(lower, upper))
}

impl Report {
    /// A row's median under one subject as a multiple of the plain process's.
    pub fn ratio(&self, row: &Row, subject: usize) -> Option<f64> {
        let reference = self.subjects.iter().position(|subject| subject.role == Role::Reference)?;
        divided(row, subject, reference)
    }

    /// A row's median under one subject as a multiple of its bare mechanism's.
    pub fn ratio_to_bare(&self, row: &Row, subject: usize) -> Option<f64> {
        let bare = self.subjects.get(subject)?.bare.as_ref()?;
        let bare = self.subjects.iter().position(|other| other.id == *bare)?;
        divided(row, subject, bare)
    }

    /// The name of a subject's bare mechanism, if that is here.
    pub fn bare_name(&self, subject: &Subject) -> Option<&str> {
        let bare = subject.bare.as_ref()?;
        self.subjects.iter().find(|other| other.id == *bare).map(|other| other.name.as_str())
    }

    /// The report as JSON: numbers in plain units (seconds, bytes, calls a second), ratios without.
    pub fn json(&self) -> Value {
        let machine: Map<String, Value> =
            self.machine.iter().map(|(name, found)| ((*name).to_owned(), json!(found))).collect();
        let subjects: Vec<Value> = self.subjects.iter().map(subject_json).collect();
        let missing: Vec<Value> = self
            .missing
            .iter()
            .map(|(isolation, reason)| json!({ "isolation": isolation, "reason": reason }))
            .collect();
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        json!({
            "version": 1, "date": self.date, "machine": machine, "rounds": self.rounds, "quick": self.quick,
            "subjects": subjects, "missing": missing, "measurements": rows,
        })
    }

    fn row_json(&self, row: &Row) -> Value {
        let quantity = row.quantity;
        let results: Vec<Value> = self
            .subjects
            .iter()
            .zip(&row.cells)
            .enumerate()
            .map(|(index, (subject, cell))| match cell {
                Cell::Measured(values) => json!({
                    "subject": subject.id, "median": cell.median(), "rounds": values,
                    "ratio": self.ratio(row, index), "ratio_to_bare": self.ratio_to_bare(row, index),
                }),
                Cell::Absent(reason) => json!({ "subject": subject.id, "absent": reason }),
            })
            .collect();
        json!({
            "id": quantity.id, "title": quantity.title, "unit": quantity.unit.name(),
            "less_is_better": quantity.less_is_better, "how": quantity.how, "results": results,
        })
    }
}

fn divided(row: &Row, one: usize, other: usize) -> Option<f64> {
    let other = row.cells.get(other)?.median().filter(|value| *value > 0.0)?;
    Some(row.cells.get(one)?.median()? / other)
}

fn subject_json(subject: &Subject) -> Value {
    let role = match subject.role {
        Role::Reference => "reference",
        Role::Bare => "bare",
        Role::Isolation => "isolation",
    };
    json!({
        "id": subject.id, "name": subject.name, "role": role, "what": subject.what, "command": subject.command,
        "bare": subject.bare,
    })
}

#[cfg(test)]
pub mod tests {
    use super::super::quantity::QUANTITIES;
    use super::*;

    fn subject(id: &str, role: Role, bare: Option<&str>) -> Subject {
        Subject {
            id: id.to_owned(),
            name: format!("The <{id}>"),
            what: "what it is & does".to_owned(),
            command: format!("run {id}"),
            role,
            bare: bare.map(str::to_owned),
        }
    }

    /// A report with something of everything in it.
    pub fn sample() -> Report {
        let absent = || Cell::Absent("it has none".to_owned());
        Report {
            date: "2026-01-31 12:00 UTC".to_owned(),
            machine: vec![("CPU", "Some <CPU> & more".to_owned())],
            rounds: 3,
            quick: false,
            subjects: vec![
                subject("process", Role::Reference, None),
                subject("qemu", Role::Bare, None),
                subject("microvm", Role::Isolation, Some("qemu")),
            ],
            missing: vec![("TEE".to_owned(), "no <hardware>".to_owned())],
            rows: vec![
                Row {
                    quantity: &QUANTITIES[0],
                    cells: vec![
                        Cell::Measured(vec![0.001, 0.003, 0.002]),
                        Cell::Measured(vec![0.8, 1.0, 1.2]),
                        Cell::Measured(vec![1.3, 1.1, 1.2]),
                    ],
                },
                Row {
                    quantity: &QUANTITIES[4],
                    cells: vec![Cell::Measured(vec![2e7]), absent(), Cell::Measured(vec![5e5, 7e5])],
                },
                Row { quantity: &QUANTITIES[3], cells: vec![absent(), absent(), absent()] },
            ],
        }
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn ratios_are_of_medians_and_absent_where_one_of_the_two_is() {
        let report = sample();
        let [start, calls, beyond] = &report.rows[..] else { panic!("three rows") };
        assert_eq!(report.ratio(start, 0), Some(1.0));
        assert!((report.ratio(start, 2).unwrap() - 600.0).abs() < 1e-9);
        assert!((report.ratio_to_bare(start, 2).unwrap() - 1.2).abs() < 1e-9);
        assert_eq!(report.ratio_to_bare(start, 1), None);
        assert_eq!(report.ratio(calls, 1), None);
        assert_eq!(report.ratio_to_bare(calls, 2), None);
        assert_eq!(report.ratio(beyond, 2), None);
    }

    #[test]
    fn json_has_every_round_and_every_reason() {
        let json = sample().json();
        let row = &json["measurements"][1];
        assert_eq!(row["unit"], "calls/s");
        assert_eq!(row["results"][1]["absent"], "it has none");
        assert_eq!(row["results"][2]["rounds"], json!([5e5, 7e5]));
        assert_eq!(row["results"][2]["median"], json!(6e5));
        assert_eq!(row["results"][2]["ratio"], json!(0.03));
        assert_eq!(json["missing"][0]["isolation"], "TEE");
    }
}
