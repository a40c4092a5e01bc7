import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import {
  decodeIdentity,
  encodeIdentity,
  isProvablyDead,
  ownIdentity,
  type ProcessIdentity,
} from '../../stores/process-identity.ts'

const children: ChildProcess[] = []
afterEach(async () => {
  for (const child of children.splice(0)) await kill(child)
})

describe('the identity of a process', () => {
  it('survives being written down', () => {
    const text = encodeIdentity(ownIdentity())
    expect(decodeIdentity(text)).toEqual(ownIdentity())
    expect(text).toMatch(/^[\x21-\x7e]{1,120}$/)
  })

  it('is not read out of anything else', () => {
    const text = encodeIdentity(ownIdentity())
    for (const bad of ['', 'x', `${text}/1`, ` ${text}`, `${text}\n`, 'b/1/0/1', 'b/1/-1/1']) {
      expect(decodeIdentity(bad)).toBeUndefined()
    }
  })

  it('says that this process is alive', () => {
    expect(isProvablyDead(ownIdentity())).toBe(false)
  })
})

describe.runIf(process.platform === 'linux')('whether a process is provably dead', () => {
  it('says no while it runs, and yes once it was killed', async () => {
    const { child, identity } = await startChild()
    expect(isProvablyDead(identity)).toBe(false)
    await kill(child)
    expect(isProvablyDead(identity)).toBe(true)
  })

  it('says no while it is stopped', async () => {
    const { child, identity } = await startChild()
    child.kill('SIGSTOP')
    expect(isProvablyDead(identity)).toBe(false)
  })

  it('says yes when the pid was given to another process', () => {
    const me = ownIdentity()
    expect(isProvablyDead({ ...me, startTime: String(Number(me.startTime) - 1) })).toBe(true)
    expect(isProvablyDead({ ...me, pid: process.ppid, startTime: '1' })).toBe(true)
  })

  it('says no for another boot and another pid namespace, which cannot be seen from here', async () => {
    const { child, identity } = await startChild()
    await kill(child)
    expect(isProvablyDead({ ...identity, bootId: 'another' })).toBe(false)
    expect(isProvablyDead({ ...identity, pidNamespace: '1' })).toBe(false)
  })

  it('says yes for a killed process that its parent never asks for', async () => {
    // The shell becomes a sleep, which never waits for its child: a zombie stays.
    const parent = spawn('sh', ['-c', 'sleep 600 & echo $!; exec sleep 601'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    children.push(parent)
    const [line] = await once(parent.stdout!, 'data')
    const pid = Number(String(line))
    const identity = { ...ownIdentity(), pid, startTime: startTimeOf(pid) }
    expect(isProvablyDead(identity)).toBe(false)
    process.kill(pid, 'SIGKILL')
    await expect.poll(() => isProvablyDead(identity)).toBe(true)
    expect(readFileSync(`/proc/${pid}/stat`, 'latin1')).toContain(') Z ')
  })
})

async function startChild(): Promise<{ child: ChildProcess; identity: ProcessIdentity }> {
  const child = spawn('sleep', ['600'], { stdio: 'ignore' })
  await once(child, 'spawn')
  children.push(child)
  return { child, identity: { ...ownIdentity(), pid: child.pid!, startTime: startTimeOf(child.pid!) } }
}

function startTimeOf(pid: number): string {
  return readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)!.split(' ')[19]!
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}
