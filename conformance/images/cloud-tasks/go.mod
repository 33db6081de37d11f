module idemq.dev/bed/cloud-tasks

go 1.19

require github.com/aertje/cloud-tasks-emulator v1.2.0
