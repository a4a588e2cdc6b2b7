//! Errors of a URL's query: the parameter, the problem, and a hint.

use crate::vista::Error;

/// Kind of a parameter error; part of the HTTP contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamCode {
    /// A column that does not exist.
    UnknownColumn,
    /// A parameter that does not exist.
    UnknownParameter,
    /// A value that cannot be parsed.
    InvalidParameter,
    /// A value or a number of items above its limit.
    LimitTooLarge,
}

impl ParamCode {
    /// Stable code of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            ParamCode::UnknownColumn => "unknown-column",
            ParamCode::UnknownParameter => "unknown-parameter",
            ParamCode::InvalidParameter => "invalid-parameter",
            ParamCode::LimitTooLarge => "limit-too-large",
        }
    }
}

/// A refused parameter. Always answered with status 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {detail}")]
pub struct ParamError {
    /// Kind of the error.
    pub code: ParamCode,
    /// Name of the parameter, decoded.
    pub parameter: String,
    /// The problem.
    pub detail: String,
    /// Advice on what to write instead.
    pub hint: Option<String>,
}

impl ParamError {
    pub(super) fn new(code: ParamCode, parameter: &str, detail: impl Into<String>) -> ParamError {
        ParamError { code, parameter: parameter.to_string(), detail: detail.into(), hint: None }
    }

    pub(super) fn invalid(parameter: &str, detail: impl Into<String>) -> ParamError {
        ParamError::new(ParamCode::InvalidParameter, parameter, detail)
    }

    pub(super) fn too_many(parameter: &str, detail: impl Into<String>) -> ParamError {
        ParamError::new(ParamCode::LimitTooLarge, parameter, detail)
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> ParamError {
        ParamError { hint: Some(hint.into()), ..self }
    }
}

pub(super) type Parsed<T> = Result<T, ParamError>;

impl From<ParamError> for Error {
    fn from(error: ParamError) -> Error {
        let mut detail = error.to_string();
        if let Some(hint) = &error.hint {
            detail.push_str(": ");
            detail.push_str(hint);
        }
        Error::Invalid { detail, fields: [(error.parameter, error.detail)].into() }
    }
}
