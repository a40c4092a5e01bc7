/** Who may upload, and by which tokens they are known. */
import { duration, oneOf, optionalText, secretText, webUrl } from '../setting-kinds.ts'
import type { Rule } from '../settings.ts'
import { defineIn } from './setting.ts'

const define = defineIn('Who may upload')

export const accessSettings = {
  auth: define({
    flag: 'auth',
    kind: oneOf('none', 'tokens', 'jwt'),
    default: 'none',
    sentence:
      'How clients sign in: not at all, with API tokens of a file (the command "tidemark tokens" makes them), or with ' +
      'JSON Web Tokens. See docs/auth.md.',
  }),
  authTokensFile: define({
    flag: 'auth-tokens-file',
    kind: optionalText('<path>'),
    default: '',
    defaultSays: 'none',
    sentence: 'File of hashed API tokens, for --auth tokens; changes of it count within a second.',
  }),
  jwtSecret: define({
    flag: 'jwt-secret',
    kind: secretText,
    default: '',
    defaultSays: 'none',
    sentence: 'Secret of 32 bytes or more for HS256; best given as a variable, or as a file.',
  }),
  jwtSecretFile: define({
    flag: 'jwt-secret-file',
    kind: optionalText('<path>'),
    default: '',
    defaultSays: 'none',
    sentence: 'File with that secret.',
  }),
  jwtKeyFile: define({
    flag: 'jwt-key-file',
    kind: optionalText('<path>'),
    default: '',
    defaultSays: 'none',
    sentence:
      'File with public keys for RS256, ES256 or EdDSA: PEM, JWK or JWKS. The keys say the algorithm.',
  }),
  jwtJwksUrl: define({
    flag: 'jwt-jwks-url',
    kind: webUrl,
    default: '',
    defaultSays: 'none',
    sentence:
      'URL of a JWKS with public keys; they are fetched every five minutes, and when a token names an unknown one.',
  }),
  jwtIssuer: define({
    flag: 'jwt-issuer',
    kind: optionalText('<text>'),
    default: '',
    defaultSays: 'any',
    sentence: 'What the claim iss must be.',
  }),
  jwtAudience: define({
    flag: 'jwt-audience',
    kind: optionalText('<text>'),
    default: '',
    defaultSays: 'any',
    sentence: 'What the claim aud must name; set it where the issuer makes tokens for other services too.',
  }),
  jwtClockToleranceMs: define({
    flag: 'jwt-clock-tolerance',
    kind: duration({ min: 0, max: 600_000 }),
    default: '5s',
    sentence: 'How far the clocks of this server and of who makes the tokens may be apart.',
  }),
} as const

const jwtKeySettings = ['jwtSecret', 'jwtSecretFile', 'jwtKeyFile', 'jwtJwksUrl'] as const

export const accessRules: readonly Rule[] = [
  {
    setting: 'auth',
    breaks: ({ config }) => config.auth === 'tokens' && config.authTokensFile === undefined,
    says: ({ name }) => `tokens needs ${name('authTokensFile')}`,
  },
  {
    setting: 'auth',
    breaks: ({ config }) =>
      config.auth === 'jwt' && jwtKeySettings.filter((key) => config[key] !== undefined).length !== 1,
    says: ({ name }) => `jwt needs exactly one of ${jwtKeySettings.map(name).join(', ')}`,
  },
  {
    setting: 'authTokensFile',
    breaks: ({ config }) => config.auth !== 'tokens',
    says: ({ name }) => `has no effect without ${name('auth')} tokens`,
  },
  ...[...jwtKeySettings, 'jwtIssuer' as const, 'jwtAudience' as const, 'jwtClockToleranceMs' as const].map(
    (setting): Rule => ({
      setting,
      breaks: ({ config }) => config.auth !== 'jwt',
      says: ({ name }) => `has no effect without ${name('auth')} jwt`,
    }),
  ),
]
