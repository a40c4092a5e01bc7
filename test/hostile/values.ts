// What a client may not send, or hardly: values for headers, names for uploads.

import fc from 'fast-check'

const numbers = fc.oneof(
  fc.constantFrom(
    '0',
    '1',
    '5',
    '-0',
    '-1',
    '+1',
    '00',
    '1e3',
    '0x10',
    '1.0',
    '1,1',
    '1, 1',
    '5 5',
    '1_0',
    '1n',
  ),
  fc.constantFrom('', 'NaN', 'Infinity', 'null', 'undefined', '\xb2', '[object Object]'),
  fc.bigInt(2n ** 53n - 3n, 2n ** 53n + 3n).map(String),
  fc.bigInt(2n ** 63n - 2n, 2n ** 64n + 2n).map(String),
  fc.integer({ min: 17, max: 5000 }).map((digits) => '9'.repeat(digits)),
)

/** Any bytes, but for those that end a line. */
const anyBytes = fc.uint8Array({ maxLength: 40 }).map((bytes) =>
  Buffer.from(bytes)
    .toString('latin1')
    .replace(/[\r\n]/g, '?'),
)

const long = fc.constantFrom(1_000, 16_000, 100 * 1024, 200 * 1024).map((length) => 'a'.repeat(length))

const broken = fc.constantFrom(
  'a\r\n b',
  'a\r\n\tb',
  'a\rb',
  'a\nb',
  'a\x00b',
  '\x7f',
  '\x1b[31m',
  '\xff\xfe',
)

const metadata = fc.oneof(
  fc.constantFrom(
    ...['a YQ==', 'a', 'a,b', 'a YQ==,a YQ==', 'a  YQ==', 'a Y', 'a YQ', 'a YQ=', ',', ',,', ' ', 'a YQ==,'],
    ...[
      '__proto__ YQ==',
      'constructor YQ==,toString YQ==',
      'filename Li4vLi4vc2VjcmV0',
      'filename AA==',
      'é YQ==',
    ],
    ...[
      'filename DQpYOiB5',
      'filetype dGV4dC9odG1s',
      'filetype Ci8K',
      'a\tYQ==',
      `filename ${'YWJj'.repeat(20_000)}`,
    ],
  ),
  fc
    .array(fc.tuple(anyBytes, anyBytes), { maxLength: 5 })
    .map((pairs) => pairs.map((p) => p.join(' ')).join(',')),
  fc
    .integer({ min: 1, max: 9000 })
    .map((count) => Array.from({ length: count }, (_, i) => `k${i} YQ==`).join(',')),
)

const checksums = fc.constantFrom(
  ...[
    'sha1',
    'sha1 ',
    'sha1 YQ==',
    'SHA1 YQ==',
    'md5 !',
    '__proto__ YQ==',
    'constructor YQ==',
    'crc32 AAAAAA==',
  ],
  ...[
    'sha1 2jmj7l5rSw0yVb/vlWAYkK/YBwk=',
    'sha1  2jmj7l5rSw0yVb/vlWAYkK/YBwk=',
    `sha512 ${'A'.repeat(90_000)}`,
  ],
)

const concats = fc.constantFrom(
  ...[
    'partial',
    'final',
    'final;',
    'final; ',
    'final;/',
    'final;/files/',
    'final;/files/../secret',
    'final;%00',
  ],
  ...['final;http://[', 'final;/files/.tidemark /files/x', 'PARTIAL', `final;${'/files/x '.repeat(5000)}`],
)

const methods = fc.constantFrom(
  ...['HEAD', 'PATCH', 'patch', 'DELETE', 'GET', 'POST', 'OPTIONS', 'CONNECT', 'TRACE', '', ' ', '__proto__'],
  ...['HEAD, PATCH', 'constructor', 'PATCH\t', 'ﬁ'],
)

const ranges = fc.constantFrom(
  ...[
    'bytes=0-',
    'bytes=-0',
    'bytes=5-1',
    'bytes=-',
    'bytes=',
    'bytes',
    'bytes=a-b',
    'bytes=0-0,1-1',
    'lines=1-2',
  ],
  ...['bytes=0-99999999999999999999', 'bytes=-99999999999999999999', `bytes=${'0-1,'.repeat(20_000)}`],
)

const hosts = fc.constantFrom(
  ...[
    '',
    'a b',
    'a/../b',
    'x"><script>',
    '[::1',
    'a@b',
    'a:99999',
    '%00',
    ',',
    ';',
    'for=1;host=a b;proto="x',
  ],
  ...[
    'for="_x", for=127.0.0.1',
    '127.0.0.1, 127.0.0.1',
    'host="',
    'javascript',
    'https',
    `${'1.1.1.1,'.repeat(10_000)}`,
  ],
)

const fitting: Readonly<Record<string, fc.Arbitrary<string>>> = {
  'Upload-Offset': numbers,
  'Upload-Length': numbers,
  'Upload-Defer-Length': numbers,
  'Upload-Metadata': metadata,
  'Upload-Checksum': checksums,
  'Upload-Concat': concats,
  Trailer: fc.constantFrom('Upload-Checksum', 'upload-checksum, X', 'Content-Length', ',', ''),
  'X-HTTP-Method-Override': methods,
  'Tus-Resumable': fc.constantFrom('0.2.2', '1.0.0, 1.0.0', '', '1.0.00', '__proto__'),
  'Content-Type': fc.constantFrom(
    '',
    ';',
    'application/offset+octet-stream;a=b',
    'text/plain',
    'multipart/form-data',
    '/',
  ),
  Range: ranges,
  'If-Range': fc.constantFrom('"x"', 'W/"x"', 'Thu, 01 Jan 1970 00:00:00 GMT'),
  'If-None-Match': fc.constantFrom('*', '"x', ',,,'),
  Expect: fc.constantFrom('100-continue', '100-Continue, x', 'x', ''),
  Origin: fc.constantFrom('null', 'http://x', 'x\xff', ''),
  Connection: fc.constantFrom('close', 'upgrade', 'Upload-Offset', 'keep-alive, close', ''),
  Upgrade: fc.constantFrom('websocket', 'h2c', ''),
  'X-Request-ID': anyBytes,
  Forwarded: hosts,
  'X-Forwarded-For': hosts,
  'X-Forwarded-Host': hosts,
  'X-Forwarded-Proto': hosts,
  'Access-Control-Request-Headers': anyBytes,
  'Accept-Encoding': fc.constantFrom('br', 'gzip;q=x', '*'),
}

export const header = fc
  .constantFrom(...Object.keys(fitting))
  .chain((name) =>
    fc
      .oneof(
        { weight: 6, arbitrary: fitting[name]! },
        { weight: 1, arbitrary: numbers },
        { weight: 1, arbitrary: anyBytes },
        { weight: 1, arbitrary: broken },
        { weight: 1, arbitrary: long },
      )
      .map((value) => [name, value] as const),
  )

const segments = fc.constantFrom(
  ...['..', '.', '/', '//', '\\', '%2e', '%2e%2e', '%2E%2E%2F', '%2F', '%2f..%2f', '%5c', '%252e%252e%252f'],
  ...[
    '%00',
    '%0d%0aX:%20y',
    '%0a',
    '%7f',
    '%c0%ae%c0%ae',
    '%c0%af',
    '%ff',
    '%',
    '%z',
    '%2',
    '%ed%a0%80',
    '%f0%9f%8c%8a',
  ],
  ...[
    '.json',
    '.info',
    '.lock',
    '.0.mark',
    '.1.data',
    '.tidemark',
    'data.mdb',
    'lock.mdb',
    'secret',
    'one',
    'uploads',
  ],
  ...[
    '?',
    '?x=%00',
    ';x',
    '#',
    '*',
    '~',
    '$',
    '`',
    '"',
    "'",
    '<script>',
    '|',
    ':',
    '@',
    '%20',
    '+',
    'con',
    '__proto__',
  ],
  ...[
    '\xe9',
    '%e6%bc%a2'.repeat(66),
    '%e6%bc%a2'.repeat(400),
    'a'.repeat(200),
    'a'.repeat(256),
    'a'.repeat(5000),
  ],
  ...[`${'a'.repeat(190)}%2f`.repeat(5), 'a%2f'.repeat(500), '0'.repeat(32), 'x'.repeat(100_000)],
)

/** Names of uploads that are none; `own` are some that are. */
export function ids(own: readonly string[]): fc.Arbitrary<string> {
  const near = own.flatMap((id) => [
    `.${id}.0.mark`,
    `.${id}.0.data`,
    `.${id}.1.data`,
    `${id}.json`,
    id.toUpperCase(),
    `${id}%00`,
  ])
  const below = own.flatMap((id) => [
    `${id}%2fx`,
    `${id}/x`,
    `./${id}`,
    `%2e%2f${id}`,
    `..%2fuploads%2f${id}`,
    `x%2f..%2f${id}`,
    `${id}%2f`,
  ])
  return fc.oneof(
    {
      weight: 3,
      arbitrary: fc.array(segments, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('')),
    },
    { weight: 1, arbitrary: fc.constantFrom(...near, ...below) },
    {
      weight: 1,
      arbitrary: fc.webUrl({ withQueryParameters: true, withFragments: true }).map(encodeURIComponent),
    },
  )
}
