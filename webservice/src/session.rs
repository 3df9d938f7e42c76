//! Anonymous sessions: a random identifier in a cookie, so that a visitor finds their orders again.

use http::{HeaderMap, HeaderValue, header};

const COOKIE: &str = "dhakacart_session";
const DAYS_30: u32 = 30 * 24 * 60 * 60;

/// Who is asking, without knowing who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    id: String,
    new: bool,
    secure: bool,
}

impl Session {
    /// The session of a request's cookie, or a new one.
    pub fn of(headers: &HeaderMap) -> Self {
        let known = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find(|(name, _)| *name == COOKIE)
            .and_then(|(_, value)| uuid::Uuid::try_parse(value).ok());
        // The Ingress ends TLS and says so.
        let secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        let new = known.is_none();
        Self { id: known.unwrap_or_else(uuid::Uuid::new_v4).to_string(), new, secure }
    }

    /// Its identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the request brought none.
    pub fn is_new(&self) -> bool {
        self.new
    }

    /// Asks the client to keep a new session.
    pub fn keep(&self, headers: &mut HeaderMap) {
        if !self.new {
            return;
        }
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie =
            format!("{COOKIE}={}; Path=/; Max-Age={DAYS_30}; HttpOnly; SameSite=Lax{secure}", self.id);
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_comes_back_from_its_own_cookie() {
        let fresh = Session::of(&HeaderMap::new());
        assert!(fresh.is_new());
        let mut answer = HeaderMap::new();
        fresh.keep(&mut answer);
        let set = answer[header::SET_COOKIE].to_str().unwrap().to_owned();
        assert!(set.contains("HttpOnly") && !set.contains("Secure"), "{set}");
        let mut request = HeaderMap::new();
        let pair = set.split(';').next().unwrap();
        request.insert(header::COOKIE, format!("a=b; {pair}").parse().unwrap());
        let again = Session::of(&request);
        assert_eq!((again.id(), again.is_new()), (fresh.id(), false));
    }

    #[test]
    fn a_forged_cookie_is_a_new_session() {
        let mut request = HeaderMap::new();
        request.insert(header::COOKIE, "dhakacart_session=' OR 1=1".parse().unwrap());
        assert!(Session::of(&request).is_new());
    }

    #[test]
    fn behind_tls_the_cookie_is_secure() {
        let mut request = HeaderMap::new();
        request.insert("x-forwarded-proto", "https".parse().unwrap());
        let mut answer = HeaderMap::new();
        Session::of(&request).keep(&mut answer);
        assert!(answer[header::SET_COOKIE].to_str().unwrap().ends_with("; Secure"));
    }
}
