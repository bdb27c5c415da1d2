//! An advisory that keeps nothing from running, why, and until when.

use std::fmt;
use std::str::FromStr;

/// `ADVISORY REASON... [until YYYY-MM-DD]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The advisory, by any of its names.
    pub advisory: String,
    /// Why it doesn't matter here.
    pub reason: String,
    /// The last day on which it is ignored; without one, for good.
    pub until: Option<Date>,
}

/// A day, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// A text that isn't an advisory with a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoredError {
    /// There is no reason.
    #[error("{0:?} has no reason, so that nobody will know later on why it is there")]
    NoReason(String),
    /// The date is none.
    #[error("{0:?} is no date")]
    Date(String),
}

impl IgnoredError {
    /// What would be right.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::NoReason(text) => {
                let advisory = text.split_whitespace().next().unwrap_or("CVE-2024-1234");
                format!("write it behind the advisory: \"{advisory} not reachable here until 2030-01-31\"")
            }
            Self::Date(_) => "dates are written as in 2030-01-31".to_owned(),
        }
    }
}

impl Ignored {
    /// Tells whether it holds on a day.
    #[must_use]
    pub fn holds(&self, today: Date) -> bool {
        self.until.is_none_or(|last| today <= last)
    }
}

impl FromStr for Ignored {
    type Err = IgnoredError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let until = match words.as_slice() {
            [.., "until", date] => {
                let date = Date::from_str(date)?;
                words.truncate(words.len() - 2);
                Some(date)
            }
            [.., "until"] => return Err(IgnoredError::Date(String::new())),
            _ => None,
        };
        match words.as_slice() {
            [advisory, reason @ ..] if !reason.is_empty() => {
                Ok(Self { advisory: (*advisory).to_owned(), reason: reason.join(" "), until })
            }
            _ => Err(IgnoredError::NoReason(text.to_owned())),
        }
    }
}

impl Date {
    /// The day that so many days after 1970-01-01 is, in UTC; the last known one for a number beyond the year 9999.
    #[must_use]
    pub fn from_days(days: u64) -> Self {
        let mut left = days;
        for year in 1970..=9999 {
            let length = if is_leap(year) { 366 } else { 365 };
            if left >= length {
                left -= length;
                continue;
            }
            for month in 1..=12 {
                let length = u64::from(days_in(year, month));
                if left < length {
                    let day = u8::try_from(left + 1).unwrap_or(1);
                    return Self { year, month, day };
                }
                left -= length;
            }
        }
        Self { year: 9999, month: 12, day: 31 }
    }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u16, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl FromStr for Date {
    type Err = IgnoredError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || IgnoredError::Date(text.to_owned());
        let mut parts = text.split('-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok())?
        };
        let (year, month, day) = (number(4), number(2), number(2));
        let (Some(year), Some(month), Some(day), None) = (year, month, day, parts.next()) else {
            return Err(wrong());
        };
        let month = u8::try_from(month).ok().filter(|month| (1..=12).contains(month)).ok_or_else(wrong)?;
        let day = u8::try_from(day)
            .ok()
            .filter(|day| (1..=days_in(year, month)).contains(day))
            .ok_or_else(wrong)?;
        Ok(Self { year, month, day })
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}
