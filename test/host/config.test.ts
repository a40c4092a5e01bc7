import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import { configurationDocument, documentPath } from '../../scripts/configuration-doc.ts'
import { commandOf, commandWords } from '../../server/commands/index.ts'
import { asksFor, loadConfig, SettingError } from '../../server/config.ts'
import { helpText } from '../../server/help.ts'
import { duration, formatDuration, size, withoutSecrets } from '../../server/setting-kinds.ts'
import { type SettingKey, settings, variableOf } from '../../server/settings.ts'

const complaint = (argv: string[], env: Record<string, string> = {}): string => {
  try {
    loadConfig(argv, env)
  } catch (error) {
    if (error instanceof SettingError) return error.message
    throw error
  }
  return 'no complaint'
}

describe('reading settings', () => {
  it('needs nothing', () => {
    expect(loadConfig([], {})).toMatchObject({
      host: '0.0.0.0',
      port: 1080,
      basePath: '/files/',
      uploadDir: './data',
      redisUrl: undefined,
      networkTimeoutMs: 60_000,
      shutdownTimeoutMs: 10_000,
      leaseMs: 10_000,
    })
  })

  it('is frozen', () => {
    expect(Object.isFrozen(loadConfig([], {}))).toBe(true)
  })

  it('takes a flag before a variable before the default', () => {
    expect(loadConfig(['--port', '2'], { TIDEMARK_PORT: '1' }).port).toBe(2)
    expect(loadConfig([], { TIDEMARK_PORT: '1' }).port).toBe(1)
  })

  it('takes an empty variable as not set', () => {
    expect(loadConfig([], { TIDEMARK_PORT: '' }).port).toBe(1080)
  })

  test.each([
    [['--port', '8080'], 'port', 8080],
    [['--port=8080'], 'port', 8080],
    [['-port', '8080'], 'port', 8080],
    [['--behind-proxy'], 'behindProxy', true],
    [['--show-page=false'], 'showPage', false],
    [['--base-path', '/a/b'], 'basePath', '/a/b/'],
    [['--upload-path', '/a/b/'], 'uploadPath', '/a/b'],
    [['--upload-path', 'off'], 'uploadPath', undefined],
    [['--max-size', '5GB'], 'maxSizeBytes', 5_000_000_000],
    [['--max-size', '10MiB'], 'maxSizeBytes', 10_485_760],
    [['--workers', '4'], 'workers', 4],
    [['--workers=auto'], 'workers', 'auto'],
    [['--lease', '1m30s'], 'leaseMs', 90_000],
    [['--expire-after', '0'], 'expireAfterMs', 0],
    [['--unix-sock', '/run/t.sock'], 'unixSock', '/run/t.sock'],
    [['--behind-proxy', '--trusted-proxies', '10.0.0.0/8, ::1'], 'trustedProxies', ['10.0.0.0/8', '::1']],
  ] as [string[], SettingKey, unknown][])('reads %j', (argv, key, value) => {
    expect(loadConfig(argv, {})[key]).toEqual(value)
  })

  test.each([
    ['*', 'https://anything.example', true],
    ['.*', 'https://anything.example', true],
    ['https://a.example,https://b.example', 'https://b.example', true],
    ['https://a.example', 'https://a.example.evil', false],
    ['https://a.example', 'https://axexample', false],
    ['https://*.a.example', 'https://x.a.example', true],
    ['https://*.a.example', 'https://x.y.a.example', false],
    ['^https://(x|y)\\.example$', 'https://y.example', true],
    ['^https://x\\.example', 'https://x.example.evil', false],
  ])('with cors-allow-origin %s lets %s in: %s', (setting, origin, isIn) => {
    const allowed = loadConfig(['--cors-allow-origin', setting], {}).corsAllowOrigin
    expect(allowed === '*' || allowed.test(origin)).toBe(isIn)
  })
})

describe('refusing settings', () => {
  test.each([
    [['--port', 'abc'], {}, '--port must be a whole number from 0 to 65535, not "abc"'],
    [['-port', '70000'], {}, '-port must be a whole number from 0 to 65535, not "70000"'],
    [[], { TIDEMARK_PORT: '-1' }, 'TIDEMARK_PORT must be a whole number from 0 to 65535, not "-1"'],
    [['--port'], {}, '--port needs a value: --port <number>'],
    [['--upload-dir', '--port=1'], {}, '--upload-dir needs a value: --upload-dir <folder>'],
    [['--upload-dir='], {}, '--upload-dir must not be empty, not ""'],
    [['--behind-proxy=yes'], {}, '--behind-proxy must be true or false, not "yes"'],
    [['--port=1', '--port=1'], {}, '--port is given more than once'],
    [['8080'], {}, '"8080" is not a setting; settings are written as --name value, see --help'],
    [['--prot', '1'], {}, '--prot is not a setting; did you mean --port?'],
    [['-max-sise', '1'], {}, '-max-sise is not a setting; did you mean -max-size?'],
    [['--hooks-grpc', 'x'], {}, '--hooks-grpc is not a setting; see --help'],
    [
      [],
      { TIDEMARK_UPLAOD_DIR: 'x' },
      'TIDEMARK_UPLAOD_DIR is not a setting; did you mean TIDEMARK_UPLOAD_DIR?',
    ],
    [['--log-level=loud'], {}, /^--log-level must be one of trace, debug, .*, not "loud"$/],
    [
      ['--network-timeout', '20'],
      {},
      /^--network-timeout must be a duration .*, not "20" \(did you mean 20s\?\)$/,
    ],
    [['--lease', '5ms'], {}, '--lease must be a duration from 1s to 10m, not "5ms"'],
    [['--max-size', '1.5'], {}, /^--max-size must be a size in whole bytes/],
    [['--base-path', 'https://x/files'], {}, /^--base-path must be a path without scheme and host/],
    [['--workers', '0'], {}, '--workers must be a whole number from 1 to 256, or auto, not "0"'],
    [['--workers=all'], {}, '--workers must be a whole number from 1 to 256, or auto, not "all"'],
    [['--base-path', '/a/../b'], {}, /^--base-path must be a path such as/],
    [['--upload-path', '/'], {}, /^--upload-path must be a path such as \/upload, or off/],
    [['--upload-path', 'upload'], {}, /^--upload-path must be a path such as \/upload/],
    [['--upload-path', '/files/put'], {}, /^--upload-path must not be below --base-path, nor above it$/],
    [['--upload-path', '/files'], {}, /^--upload-path must not be below --base-path, nor above it$/],
    [['--upload-path', '/a', '--base-path', '/a/b'], {}, /^--upload-path must not be below --base-path/],
    [['--base-path', '/health'], {}, /^--base-path must not be below \/health\//],
    [['--base-path', '/'], {}, /^--base-path can not be \/ while .*--show-page=false$/],
    [['--unix-sock=a', '--port=1'], {}, '--unix-sock can not be used together with --port'],
    [['--unix-sock=a'], { TIDEMARK_HOST: '::1' }, '--unix-sock can not be used together with TIDEMARK_HOST'],
    [['--trusted-proxies=::1'], {}, '--trusted-proxies has no effect without --behind-proxy'],
    [['--behind-proxy', '--trusted-proxies=nobody'], {}, /^--trusted-proxies must be a list of addresses/],
    [
      ['--expire-mode=absolute', '--expire-after=0'],
      {},
      '--expire-mode has no effect while --expire-after is 0',
    ],
    [['--redis-key-prefix=a:'], {}, '--redis-key-prefix has no effect without --redis-url'],
    [['--cors-allow-origin', 'example.com'], {}, /^--cors-allow-origin must be \*, a list of origins/],
    [['--cors-allow-origin', '^('], {}, /^--cors-allow-origin must be a valid regular expression/],
  ] as [string[], Record<string, string>, string | RegExp][])('%j %j', (argv, env, sentence) => {
    if (typeof sentence === 'string') expect(complaint(argv, env)).toBe(sentence)
    else expect(complaint(argv, env)).toMatch(sentence)
  })

  it('never repeats the password of a Redis', () => {
    for (const url of ['http://me:geheim@redis', 'redis://me:geheim/@redis', 'redis://h?password=geheim']) {
      expect(complaint(['--redis-url', url])).toMatch(/^--redis-url (must|has) /)
      expect(complaint(['--redis-url', url])).not.toContain('geheim')
    }
    expect(withoutSecrets('rediss://me:geheim@redis:6380/2?family=6')).toBe('rediss://redis:6380/2')
    expect(withoutSecrets('redis+sentinel://:geheim@a:1,b/name?sentinelPassword=geheim')).toBe(
      'redis+sentinel://a:1,b/name',
    )
  })

  it('says one line, whatever was written', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(complaint([`--port=x${text}`])).not.toContain('\n')
      }),
    )
  })
})

describe('durations and sizes', () => {
  const anyLength = duration({ max: Number.MAX_SAFE_INTEGER })

  it('reads every duration that it writes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 3_000_000_000_000 }), (ms) => {
        expect(anyLength.parse(formatDuration(ms))).toBe(ms)
      }),
    )
  })

  it('adds up the parts of a duration', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.nat(1000), fc.nat(1000), (h, m, ms) => {
        expect(anyLength.parse(`${h}h${m}m${ms}ms`)).toBe(h * 3_600_000 + m * 60_000 + ms)
      }),
    )
  })

  it('reads sizes in every unit', () => {
    const units = [
      ['', 1],
      ['KB', 1e3],
      ['MB', 1e6],
      ['GB', 1e9],
      ['KiB', 2 ** 10],
      ['MiB', 2 ** 20],
      ['gib', 2 ** 30],
    ]
    fc.assert(
      fc.property(
        fc.nat(1_000_000),
        fc.constantFrom(...(units as [string, number][])),
        (n, [unit, bytes]) => {
          expect(size.parse(`${n}${unit}`)).toBe(n * bytes)
        },
      ),
    )
  })

  test.each([
    ['1.5s', 1500],
    ['0.1s', 100],
    ['1d', 86_400_000],
  ])('%s are %d ms', (text, ms) => {
    expect(duration().parse(text)).toBe(ms)
  })

  test.each(['', 's', '1', '-1s', '1.s', '1 s', '0.5ms', '1s1', '1e3s'])(
    'refuses the duration "%s"',
    (text) => {
      expect(() => duration().parse(text)).toThrow()
    },
  )

  test.each(['', 'MB', '-1', '0.5', '1XB', '1e3', '9007199254740993'])('refuses the size "%s"', (text) => {
    expect(() => size.parse(text)).toThrow()
  })
})

describe('help', () => {
  it('names every setting and its variable, in 100 columns', () => {
    const help = helpText('1.2.3')
    for (const { flag } of Object.values(settings)) {
      expect(help).toContain(`  --${flag} `)
      expect(help).toContain(`${variableOf(flag)}\n`)
    }
    expect(Math.max(...help.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100)
  })

  it('names every command, after which the command can be asked', async () => {
    const help = helpText('1.2.3')
    expect(help).toContain('\nCommands\n')
    for (const name of Object.keys(commandWords)) {
      expect(help).toContain(`  tidemark ${name}\n`)
      const said: string[] = []
      const terminal = {
        env: {},
        out: (text: string) => said.push(text),
        err: (text: string) => said.push(text),
      }
      const { run } = await commandOf([name])!()
      expect(await run(['--help'], terminal)).toBe(0)
      expect(said.join('')).toContain(`tidemark ${name} `)
    }
  })

  it('is given whatever else was written', () => {
    expect(asksFor(['--port', 'x', '--help'])).toBe('help')
    expect(asksFor(['-version'])).toBe('version')
    expect(asksFor(['--port', '1'])).toBe(undefined)
  })

  it('has a document that says what the table says', () => {
    // When this fails: npx tsx scripts/configuration-doc.ts
    expect(readFileSync(documentPath, 'utf8')).toBe(configurationDocument())
  })
})
