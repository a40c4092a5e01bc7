import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, it, onTestFinished } from 'vitest'
import { endOfTurn } from '../../server/host/turn.ts'
import { startSite } from '../protocol/exchange.ts'

it('all who ask in one turn of the event loop go on together, behind what is left of it', async () => {
  const order: string[] = []
  const first = endOfTurn().then(() => order.push('first'))
  const second = endOfTurn().then(() => order.push('second'))
  await Promise.resolve()
  order.push('the turn')
  expect(endOfTurn()).toBe(endOfTurn())
  await Promise.all([first, second])
  expect(order).toEqual(['the turn', 'first', 'second'])
})

it('who asks in the next turn waits for its end', async () => {
  const before = endOfTurn()
  await before
  const after = endOfTurn()
  expect(after).not.toBe(before)
  await after
})

it('answers to several requests of one connection come in their order', async () => {
  const site = await startSite()
  const urls = [await site.create(1), await site.create(2), await site.create(3)]
  const socket = connect(site.port, '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  const heads = urls.map((url) => `HEAD ${url} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\n\r\n`)
  socket.write(heads.join(''))
  let answers = ''
  while (answers.split('\r\n\r\n').length < 4) answers += (await once(socket, 'data'))[0]
  expect([...answers.matchAll(/upload-length: (\d)/gi)].map(([, length]) => length)).toEqual(['1', '2', '3'])
})
