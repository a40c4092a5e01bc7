// Runs in the browser: Uppy's dashboard with @uppy/tus, as other people's pages have it.

import '@uppy/core/css/style.min.css'
import '@uppy/dashboard/css/style.min.css'
import Uppy from '@uppy/core'
import Dashboard from '@uppy/dashboard'
import Tus from '@uppy/tus'

function startUppy(options: ConstructorParameters<typeof Tus>[1]): void {
  const target = document.body.appendChild(document.createElement('div'))
  const uppy = new Uppy().use(Dashboard, { target, inline: true }).use(Tus, options)
  const urls = () => Object.fromEntries(uppy.getFiles().map((file) => [file.name, file.uploadURL]))
  Object.assign(globalThis, { urls, uppy })
}

Object.assign(globalThis, { startUppy })
