# Loads the workers that a test brings and says on a port that this process takes jobs.
require 'socket'

require '/bed/worker.rb' if File.exist?('/bed/worker.rb')

Sidekiq.configure_server do |config|
  config.on(:startup) do
    listener = TCPServer.new('0.0.0.0', 7433)
    Thread.new do
      loop do
        client = listener.accept
        client.puts 'ready'
        client.close
      end
    end
  end
end
