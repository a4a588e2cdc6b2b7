//! Parts of certificates that rustls does not give: their validity and the name of their subject.

use std::time::SystemTime;

use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use diorama_gateway::ClientCertificate;

/// Attribute of a subject that is its common name.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Returns the times at which a certificate begins and ceases to be valid.
///
/// # Errors
/// The certificate is malformed.
pub(super) fn validity(der: &[u8]) -> Result<(SystemTime, SystemTime), String> {
    let validity = parse(der)?.tbs_certificate.validity;
    Ok((validity.not_before.to_system_time(), validity.not_after.to_system_time()))
}

/// Returns the certificate of a client, which rustls has verified.
///
/// # Errors
/// The certificate is malformed.
pub(in crate::app) fn client_certificate(der: &[u8]) -> Result<ClientCertificate, String> {
    let certificate = parse(der)?;
    let name = match common_name(&certificate) {
        Some(name) => name,
        None => alternative_name(&certificate)?.unwrap_or_default(),
    };
    Ok(ClientCertificate::new(&name, der))
}

fn parse(der: &[u8]) -> Result<Certificate, String> {
    Certificate::from_der(der).map_err(|error| format!("the certificate is malformed: {error}"))
}

/// Returns the last common name, which is the most specific one.
fn common_name(certificate: &Certificate) -> Option<String> {
    let attributes = certificate.tbs_certificate.subject.0.iter().flat_map(|names| names.0.iter());
    let own = attributes.rev().find(|attribute| attribute.oid == COMMON_NAME)?;
    let is_text = matches!(own.value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String);
    let text = std::str::from_utf8(own.value.value()).ok().filter(|text| is_text && !text.is_empty())?;
    Some(text.to_string())
}

/// Returns the first alternative name that is a text.
fn alternative_name(certificate: &Certificate) -> Result<Option<String>, String> {
    let names = certificate.tbs_certificate.get::<SubjectAltName>();
    let names = names.map_err(|error| format!("the certificate's names are malformed: {error}"))?;
    let text = |name: &GeneralName| match name {
        GeneralName::DnsName(name) | GeneralName::Rfc822Name(name) | GeneralName::UniformResourceIdentifier(name) => {
            Some(name.to_string())
        }
        _ => None,
    };
    Ok(names.and_then(|(_, names)| names.0.iter().find_map(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(common: Option<&str>, alternative: &[rcgen::SanType]) -> String {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "Shop");
            parameters.distinguished_name.push(rcgen::DnType::CommonName, common);
        }
        parameters.subject_alt_names = alternative.to_vec();
        let certificate = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        client_certificate(certificate.der()).unwrap().name.to_string()
    }

    #[test]
    fn the_name_of_a_client_is_its_common_name_or_else_its_first_alternative_name() {
        let uri = rcgen::SanType::URI("spiffe://shop.example/robot".try_into().unwrap());
        let dns = rcgen::SanType::DnsName("robot.example".try_into().unwrap());
        let address = rcgen::SanType::IpAddress([10, 0, 0, 1].into());
        assert_eq!(made(Some("robot"), std::slice::from_ref(&dns)), "robot");
        assert_eq!(made(None, &[address.clone(), uri.clone(), dns.clone()]), "spiffe://shop.example/robot");
        assert_eq!(made(None, &[dns, uri]), "robot.example");
        assert_eq!(made(Some(""), &[address]), "");
    }

    #[test]
    fn what_is_not_a_certificate_is_refused() {
        assert!(client_certificate(b"0\x03abc").is_err() && validity(b"").is_err());
    }
}
