import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { explain, findProgram, planInstallation, systemOf } from '../../scripts/test-programs.mjs'
import { temporaryFolder } from '../support/folder.ts'

const found = { is: 'found', path: '/usr/bin/it' } as const
const missing = { is: 'missing' } as const
const debianRoot = { system: 'debian', isRoot: true } as const

describe('what is installed for the tests', () => {
  it('is nothing when all programs are there', () => {
    const all = {
      redis: found,
      chromium: found,
      nginx: found,
      curl: found,
      wget: found,
      httpie: found,
      openssl: found,
      faketime: found,
      tuspy: found,
    }
    expect(planInstallation(all, debianRoot)).toEqual({ is: 'nothing-to-do' })
  })

  it('is exactly what is missing, for root on Debian', () => {
    const some = { redis: missing, chromium: found, nginx: missing }
    expect(planInstallation(some, debianRoot)).toEqual({
      is: 'install',
      packages: ['redis-server', 'nginx-light'],
    })
  })

  it.each([
    ['for anybody but root', { system: 'debian', isRoot: false }],
    ['on another system', { system: 'other', isRoot: true }],
  ] as const)('is nothing %s, who reads what to do', (_, machine) => {
    const plan = planInstallation({ redis: missing, chromium: found, nginx: found }, machine)
    expect(plan).toMatchObject({ is: 'refuse' })
    expect(plan).toHaveProperty('reason', expect.stringContaining('TIDEMARK_TEST_REDIS_SERVER'))
  })

  it('is nothing on Ubuntu when Chromium is missing, which is only a snap there', () => {
    const ubuntuRoot = { system: 'ubuntu', isRoot: true } as const
    const plan = planInstallation({ redis: missing, chromium: missing, nginx: found }, ubuntuRoot)
    expect(plan).toMatchObject({ is: 'refuse' })
    expect(planInstallation({ redis: missing, chromium: found, nginx: found }, ubuntuRoot)).toEqual({
      is: 'install',
      packages: ['redis-server'],
    })
  })

  it('is nothing while a variable names what is no program: that is to be corrected', () => {
    const misnamed = { is: 'misnamed', variable: 'TIDEMARK_TEST_NGINX', path: '/nowhere' } as const
    const plan = planInstallation({ redis: missing, chromium: found, nginx: misnamed }, debianRoot)
    expect(plan).toHaveProperty('reason', expect.stringContaining('TIDEMARK_TEST_NGINX names /nowhere'))
  })
})

it('says in one line what is missing, the packages and the variables', () => {
  const line = explain({ redis: missing, chromium: found, nginx: missing })
  expect(line).not.toContain('\n')
  expect(line).toContain('redis-server nginx-light')
  expect(line).toContain('TIDEMARK_TEST_REDIS_SERVER, TIDEMARK_TEST_NGINX')
})

describe('a program', () => {
  it('is the one that its variable names, before any other', async () => {
    const path = join(await temporaryFolder(), 'my-redis')
    await writeFile(path, '#!/bin/sh\n')
    const env = { PATH: process.env.PATH, TIDEMARK_TEST_REDIS_SERVER: path }
    expect(findProgram('redis', env)).toEqual({
      is: 'misnamed',
      variable: 'TIDEMARK_TEST_REDIS_SERVER',
      path,
    })
    await chmod(path, 0o755)
    expect(findProgram('redis', env)).toEqual({ is: 'found', path })
  })

  it('is found along PATH', async () => {
    const folder = await temporaryFolder()
    await writeFile(join(folder, 'nginx'), '#!/bin/sh\n', { mode: 0o755 })
    expect(findProgram('nginx', { PATH: `${folder}:/bin` })).toEqual({
      is: 'found',
      path: join(folder, 'nginx'),
    })
  })
})

describe('a library of Python', () => {
  it('is found by the first Python that has it', async () => {
    const [without, having] = [await temporaryFolder(), await temporaryFolder()]
    await writeFile(join(without, 'python3'), '#!/bin/sh\nexit 1\n', { mode: 0o755 })
    await writeFile(join(having, 'python3'), '#!/bin/sh\nexit 0\n', { mode: 0o755 })
    const path = join(having, 'python3')
    expect(findProgram('tuspy', { PATH: `${without}:${having}` })).toEqual({ is: 'found', path })
  })

  it('is installed as a package where it is missing', () => {
    const plan = planInstallation({ redis: found, tuspy: missing }, debianRoot)
    expect(plan).toEqual({ is: 'install', packages: ['python3-tuspy'] })
  })
})

it.each([
  ['PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n', 'debian'],
  ['NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n', 'ubuntu'],
  ['ID=linuxmint\nID_LIKE="ubuntu debian"\n', 'ubuntu'],
  ['ID=raspbian\nID_LIKE=debian\n', 'debian'],
  ['ID=alpine\n', 'other'],
  ['', 'other'],
])('knows the system from %j', (osRelease, system) => {
  expect(systemOf(osRelease)).toBe(system)
})
