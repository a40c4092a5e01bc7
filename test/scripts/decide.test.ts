import { cp, mkdir, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { contentHash, installationHash, nodeIsNewEnough, planSteps } from '../../scripts/decide.mjs'
import { temporaryFolder } from '../support/folder.ts'

const fresh = { stamp: 'a', wanted: 'a' }
const changed = { stamp: 'a', wanted: 'b' }
const built = { ...fresh, isThere: true }

describe('what is done before start and test', () => {
  it('does nothing when everything was made from what is there', () => {
    expect(planSteps({ installed: fresh, server: built, page: built })).toEqual([])
  })

  it('does everything, in order, on a fresh clone', () => {
    const none = { stamp: null, wanted: 'a' }
    const nothing = { ...none, isThere: false }
    expect(planSteps({ installed: none, server: nothing, page: nothing })).toEqual([
      'install',
      'build-server',
      'build-page',
    ])
  })

  it('builds only the part whose sources changed', () => {
    const stale = { ...changed, isThere: true }
    expect(planSteps({ installed: fresh, server: stale, page: built })).toEqual(['build-server'])
    expect(planSteps({ installed: fresh, server: built, page: stale })).toEqual(['build-page'])
  })

  it('builds again what somebody removed, whatever the stamp says', () => {
    expect(planSteps({ installed: fresh, server: { ...built, isThere: false }, page: built })).toEqual([
      'build-server',
    ])
  })

  it('builds again what was left half way, whatever lies there', () => {
    expect(planSteps({ installed: fresh, server: { ...built, stamp: null }, page: built })).toEqual([
      'build-server',
    ])
  })

  it('installs only, when only the installation is another one', () => {
    expect(planSteps({ installed: changed, server: built, page: null })).toEqual(['install'])
  })
})

describe('the hash of an installation', () => {
  const node = { abi: '115', platform: 'linux', arch: 'x64' }

  it('is the same for the same lock file and the same kind of Node', () => {
    expect(installationHash('lock', node)).toBe(installationHash('lock', { ...node }))
  })

  it.each([
    ['the lock file', 'other lock', node],
    ['the ABI of Node', 'lock', { ...node, abi: '127' }],
    ['the platform', 'lock', { ...node, platform: 'darwin' }],
    ['the processor', 'lock', { ...node, arch: 'arm64' }],
  ])('changes with %s', (_, lock, other) => {
    expect(installationHash(lock, other)).not.toBe(installationHash('lock', node))
  })
})

describe('the hash of sources', () => {
  async function sources(): Promise<string> {
    const root = await temporaryFolder()
    await mkdir(join(root, 'server/protocol'), { recursive: true })
    await writeFile(join(root, 'server/main.ts'), 'one')
    await writeFile(join(root, 'server/protocol/tus.ts'), 'two')
    return root
  }
  const paths = ['server', 'stores', 'tsconfig.json']

  it('says nothing of times and places', async () => {
    const root = await sources()
    const copy = join(await temporaryFolder(), 'copy')
    await cp(root, copy, { recursive: true })
    await utimes(join(copy, 'server/main.ts'), 1, 1)
    expect(contentHash(copy, paths)).toBe(contentHash(root, paths))
  })

  it('changes with a content, a name, and a file that appears', async () => {
    const root = await sources()
    const seen = new Set([contentHash(root, paths)])
    await writeFile(join(root, 'server/protocol/tus.ts'), 'owt')
    seen.add(contentHash(root, paths))
    await writeFile(join(root, 'server/protocol/new.ts'), '')
    seen.add(contentHash(root, paths))
    await writeFile(join(root, 'tsconfig.json'), '')
    seen.add(contentHash(root, paths))
    expect(seen.size).toBe(4)
  })

  it('does not look into an installation inside of the sources', async () => {
    const root = await sources()
    const before = contentHash(root, paths)
    await mkdir(join(root, 'server/node_modules'))
    await writeFile(join(root, 'server/node_modules/x.js'), 'x')
    expect(contentHash(root, paths)).toBe(before)
  })
})

it.each([
  ['20.19.0', true],
  ['20.18.3', false],
  ['22.0.0', true],
  ['18.20.0', false],
])('takes Node %s as new enough for >=20.19: %s', (version, expected) => {
  expect(nodeIsNewEnough(version, '>=20.19')).toBe(expected)
})
