# The program around the snippet of the page: a webhook on standard input, a verdict on standard output.
require_relative "snippet"

hook = JSON.parse($stdin.read)
begin
  verify(hook["body"], hook["headers"], hook["secret"])
  puts "accepted"
rescue RuntimeError
  puts "refused"
end
