"""Login, sessions and API keys over HTTP."""

from functools import partial

from api.identity import api_keys, login, sessions
from api.identity.answers import CurrentUser, SessionList, SessionTokens, Success
from api.problems import FHE, SERVICE
from api.roles import ADMINS
from api.routing import Route, Who

_AUTH = "/api/v1/auth"
_KEYS = "/api/v1/api-keys"

_auth_route = partial(Route, dialect=SERVICE, who=Who.HUMAN, tags=("auth",))
_key_route = partial(Route, dialect=FHE, who=Who.SESSION_OR_KEY, roles=ADMINS, tags=("auth",))

ROUTES = [
    _auth_route(
        "POST",
        f"{_AUTH}/token",
        login.log_in,
        who=Who.PUBLIC,
        body=login.LoginBody,
        raw_body=True,
        response=SessionTokens,
        summary="Login For Access Token",
        refusals=(401, 429),
        max_body=16 * 1024,
    ),
    _auth_route(
        "POST",
        f"{_AUTH}/refresh",
        login.refresh,
        who=Who.PUBLIC,
        body=login.RefreshBody,
        response=SessionTokens,
        summary="Refresh Access Token",
        refusals=(401,),
        max_body=16 * 1024,
    ),
    _auth_route(
        "POST",
        f"{_AUTH}/logout",
        login.log_out,
        body=login.LogoutBody,
        response=Success,
        summary="Logout Session",
        refusals=(404,),
        max_body=16 * 1024,
    ),
    _auth_route(
        "POST",
        f"{_AUTH}/logout/all",
        login.log_out_everywhere,
        response=Success,
        summary="Logout All Sessions",
        refusals=(404,),
    ),
    _auth_route(
        "GET",
        f"{_AUTH}/me",
        sessions.current_user,
        response=CurrentUser,
        summary="Get Current User Info",
        refusals=(404,),
    ),
    _auth_route(
        "GET",
        f"{_AUTH}/sessions",
        sessions.list_sessions,
        query=sessions.SessionsQuery,
        response=SessionList,
        summary="List User Sessions",
    ),
    _auth_route(
        "DELETE",
        f"{_AUTH}/sessions/{{session_id}}",
        sessions.revoke_session,
        response=Success,
        summary="Revoke User Session",
        refusals=(404,),
    ),
    _auth_route(
        "POST",
        f"{_AUTH}/password/change",
        sessions.change_password,
        body=sessions.PasswordBody,
        response=Success,
        summary="Change Password",
        refusals=(401, 403, 404, 429),
        max_body=16 * 1024,
    ),
    _key_route(
        "POST",
        _KEYS,
        api_keys.issue,
        body=api_keys.IssueBody,
        response=api_keys.IssuedApiKey,
        status=201,
        summary="Issue an API key; the key is shown once",
        refusals=(400,),
        max_body=16 * 1024,
    ),
    _key_route(
        "GET",
        _KEYS,
        api_keys.list_keys,
        query=api_keys.KeysQuery,
        response=api_keys.ApiKeyPage,
        summary="List API keys",
        refusals=(400,),
    ),
    _key_route(
        "PATCH",
        f"{_KEYS}/{{api_key_id}}",
        api_keys.revise,
        body=api_keys.ReviseBody,
        response=api_keys.ApiKeyItem,
        summary="Change an API key",
        refusals=(400, 404, 409),
        max_body=16 * 1024,
    ),
    _key_route(
        "POST",
        f"{_KEYS}/{{api_key_id}}/rotate",
        api_keys.rotate,
        body=api_keys.RotateBody,
        response=api_keys.RotatedApiKey,
        summary="Give an API key another secret",
        description=(
            "The new secret is shown in this answer and never again. The one so far works for "
            "`grace_seconds` more; one that is older stops at once."
        ),
        refusals=(400, 404, 409),
        max_body=16 * 1024,
    ),
    _key_route(
        "DELETE",
        f"{_KEYS}/{{api_key_id}}",
        api_keys.revoke,
        status=204,
        summary="Revoke an API key",
        refusals=(404,),
    ),
]
