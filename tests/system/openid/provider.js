// A certified OpenID provider (oidc-provider) on a port of this machine, for one client. Whoever names themselves is in.
// It tells when it serves; where its clients and their secrets come from is the tests' business.

import { Provider } from "oidc-provider";

const { PORT, CLIENT_ID, CLIENT_SECRET, CHAT } = process.env;
const SCOPES = "openid profile email";

const provider = new Provider(`http://127.0.0.1:${PORT}`, {
  clients: [
    {
      client_id: CLIENT_ID,
      ...(CLIENT_SECRET ? { client_secret: CLIENT_SECRET } : {}),
      token_endpoint_auth_method: CLIENT_SECRET ? "client_secret_basic" : "none",
      redirect_uris: [`${CHAT}/sign-in/callback`],
      post_logout_redirect_uris: [`${CHAT}/sign-in`],
      backchannel_logout_uri: `${CHAT}/sign-in/backchannel`,
      backchannel_logout_session_required: true,
    },
  ],
  claims: { openid: ["sub"], profile: ["name"], email: ["email", "email_verified"] },
  fetch: (address, { dispatcher, ...options }) => fetch(address, options), // its own one goes to no address of this machine
  cookies: { keys: ["of the tests"] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: `${id} Example`, email: `${id}@example.com`, email_verified: true }),
  }),
  async loadExistingGrant({ oidc }) {
    const grant = new oidc.provider.Grant({ clientId: oidc.client.clientId, accountId: oidc.session.accountId });
    grant.addOIDCScope(SCOPES);
    await grant.save();
    return grant;
  },
  interactions: { url: (_, { uid }) => `/interaction/${uid}` },
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      logoutSource(ctx, form) {
        ctx.body = page(`${form}<button form="op.logoutForm" name="logout" value="yes">Sign out</button>`);
      },
    },
  },
});

const page = (body) => `<!doctype html><title>Provider</title><link rel="icon" href="data:,">${body}`;

provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith("/interaction/")) return next();
  await provider.interactionDetails(ctx.req, ctx.res);
  const { name } = ctx.query;
  if (!name) return void (ctx.body = page('<form><label>Name <input name="name"></label><button>Enter</button></form>'));
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, { login: { accountId: name } }));
});

for (const event of ["backchannel.error", "server_error", "grant.error", "authorization.error"])
  provider.on(event, (...told) => console.log(event, ...told.filter((each) => each instanceof Error)));
provider.listen(Number(PORT), "127.0.0.1", () => console.log("The provider serves"));
