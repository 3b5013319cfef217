//! What is well and what is to be mended: `evenkeel.doctor/1`.

use serde::Serialize;

/// `evenkeel.doctor/1`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doctor {
    /// Always `evenkeel.doctor/1`.
    pub schema: &'static str,
    /// The worst of all checks.
    pub result: CheckResult,
    /// Every check, in a fixed order.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: a name that stays.
    pub check: &'static str,
    /// How it came out.
    pub result: CheckResult,
    /// What was found, in numbers.
    pub found: String,
    /// What would mend it; null: nothing has to be mended.
    pub mend: Option<String>,
}

/// How a check came out; the later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// Nothing to be done.
    Ok,
    /// It works, with less than it should.
    Warning,
    /// Something does not work, or guests are in danger.
    Failed,
}

impl CheckResult {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

impl Check {
    /// Nothing to be done.
    #[must_use]
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            result: CheckResult::Ok,
            found: found.into(),
            mend: None,
        }
    }

    /// It works, with less than it should.
    #[must_use]
    pub fn warning(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            check,
            result: CheckResult::Warning,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    /// Something does not work.
    #[must_use]
    pub fn failed(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            result: CheckResult::Failed,
            ..Self::warning(check, found, mend)
        }
    }
}

impl Doctor {
    /// All checks.
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        let worst = checks.iter().map(|check| check.result).max();
        Self {
            schema: "evenkeel.doctor/1",
            result: worst.unwrap_or(CheckResult::Ok),
            checks,
        }
    }
}
