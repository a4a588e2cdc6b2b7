//! Errors of a URL's query: which parameter, what is wrong with it, and what to write instead.

use crate::vista::Error;

/// What kind of parameter error it is; part of the HTTP contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamCode {
    /// A column that does not exist.
    UnknownColumn,
    /// A parameter that does not exist.
    UnknownParameter,
    /// A value that cannot be read.
    InvalidParameter,
    /// More than is allowed.
    LimitTooLarge,
}

impl ParamCode {
    /// Its stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            ParamCode::UnknownColumn => "unknown-column",
            ParamCode::UnknownParameter => "unknown-parameter",
            ParamCode::InvalidParameter => "invalid-parameter",
            ParamCode::LimitTooLarge => "limit-too-large",
        }
    }
}

/// A parameter that is not accepted. Always a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {detail}")]
pub struct ParamError {
    /// What kind.
    pub code: ParamCode,
    /// The parameter, decoded.
    pub parameter: String,
    /// What is wrong.
    pub detail: String,
    /// What to write instead.
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
