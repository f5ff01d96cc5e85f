// node tus_server.mjs PORT FOLDER: a tus server over files, as its documentation shows it.
import { Server } from '@tus/server'
import { FileStore } from '@tus/file-store'

const [port, folder] = process.argv.slice(2)
const server = new Server({ path: '/files', datastore: new FileStore({ directory: folder }) })
server.listen({ host: '127.0.0.1', port: Number(port) })
